//! axum, whose listener gives streams of a pool.

use std::io;
use std::net::SocketAddr;

use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::Path;
use ::axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use uring_arena::tokio::{Pool, Stream};

use crate::support::{Outcome, connect, on_all, pattern};

/// A listener whose connections are streams of a pool.
struct PoolListener {
    listener: TcpListener,
    pool: Pool,
}

impl ::axum::serve::Listener for PoolListener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        let (socket, from) = self.listener.accept().await.unwrap();
        (self.pool.stream(socket).unwrap(), from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn parts(Path(count): Path<usize>) -> Body {
    let parts = (0..count).map(|seed| Ok::<_, io::Error>(Bytes::from(pattern(seed, 3000))));
    Body::from_stream(futures_util::stream::iter(parts))
}

#[test]
fn handlers_take_and_give_bodies_until_the_server_stops() -> Outcome {
    on_all(|pool| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/parts/{count}", get(parts))
            .route("/echo", post(|body: Bytes| async move { body }));
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = PoolListener { listener, pool: pool.clone() };
        let serve = ::axum::serve(listener, router).with_graceful_shutdown(async move {
            let _ = stopped.await;
        });
        let serving = tokio::spawn(serve.into_future());
        let stream = TokioIo::new(connect(&pool, address).await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        for count in [0, 1, 100] {
            let request = Request::get(format!("/parts/{count}")).header("host", "here");
            sender.ready().await?;
            let answer = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
            let body = answer.into_body().collect().await?.to_bytes();
            let expected: Vec<u8> = (0..count).flat_map(|seed| pattern(seed, 3000)).collect();
            assert!(body == expected, "{count} parts");
        }
        let sent = Bytes::from(pattern(9, 300_000));
        let request =
            Request::post("/echo").header("host", "here").body(Full::new(sent.clone()))?;
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        assert!(answer.into_body().collect().await?.to_bytes() == sent);
        let request = Request::get("/nowhere").header("host", "here");
        sender.ready().await?;
        let answer = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
        assert_eq!(answer.status(), 404);
        drop(answer);
        drop(sender);
        connection.await??;
        drop(stop);
        serving.await??;
        Ok(())
    })
}
