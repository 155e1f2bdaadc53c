//! hyper, server and client, HTTP/1 and HTTP/2.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::support::{Listener, Outcome, connect, on_all, pattern};

/// Answers with the body of the request, in front of which its path stands.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(Bytes::from([path.as_bytes(), &body].concat()))))
}

fn request(number: usize, body: &Bytes) -> Request<Full<Bytes>> {
    let uri = format!("http://localhost/{number}");
    Request::post(uri).header("host", "localhost").body(Full::new(body.clone())).unwrap()
}

async fn check(answer: Response<Incoming>, number: usize, body: &Bytes) -> Outcome {
    assert_eq!(answer.status(), 200);
    let answer = answer.into_body().collect().await?.to_bytes();
    let path = format!("/{number}");
    assert!(answer == [path.as_bytes(), body].concat(), "request {number}");
    Ok(())
}

/// Makes the bodies of the requests: none, short ones, and more than all slots hold.
fn bodies() -> Vec<Bytes> {
    let lens = [0, 1, 500, 5000, 70_000, 400_000, 3];
    lens.into_iter().enumerate().map(|(seed, len)| pattern(seed, len).into()).collect()
}

#[test]
fn requests_and_answers_of_http_1_come_whole() -> Outcome {
    on_all(|pool| async move {
        let listener = Listener::bind(&pool).await;
        let address = listener.address();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for _ in 0..4 {
                let stream = TokioIo::new(listener.accept().await);
                let server = hyper::server::conn::http1::Builder::new();
                connections.spawn(server.serve_connection(stream, service_fn(echo)));
            }
            while let Some(served) = connections.join_next().await {
                served.unwrap().unwrap();
            }
        });
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let pool = pool.clone();
            clients.spawn(async move {
                let stream = TokioIo::new(connect(&pool, address).await);
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(stream).await?;
                let connection = tokio::spawn(connection);
                for (number, body) in bodies().iter().enumerate() {
                    sender.ready().await?;
                    let answer = sender.send_request(request(number, body)).await?;
                    check(answer, number, body).await?;
                }
                drop(sender);
                connection.await??;
                Outcome::Ok(())
            });
        }
        while let Some(client) = clients.join_next().await {
            client??;
        }
        serving.await?;
        Ok(())
    })
}

#[test]
fn requests_of_http_2_run_side_by_side() -> Outcome {
    on_all(|pool| async move {
        let listener = Listener::bind(&pool).await;
        let address = listener.address();
        let serving = tokio::spawn(async move {
            let stream = TokioIo::new(listener.accept().await);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.serve_connection(stream, service_fn(echo)).await.unwrap();
        });
        let stream = TokioIo::new(connect(&pool, address).await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        let connection = tokio::spawn(connection);
        let mut requests = JoinSet::new();
        for _ in 0..4 {
            for (number, body) in bodies().into_iter().enumerate() {
                let mut sender = sender.clone();
                requests.spawn(async move {
                    let answer = sender.send_request(request(number, &body)).await?;
                    check(answer, number, &body).await
                });
            }
        }
        while let Some(answered) = requests.join_next().await {
            answered??;
        }
        drop(sender);
        connection.await??;
        serving.await?;
        Ok(())
    })
}

/// A client that hangs up in the middle of a request harms nobody else.
#[test]
fn a_client_that_hangs_up_harms_no_other() -> Outcome {
    on_all(|pool| async move {
        let listener = Listener::bind(&pool).await;
        let address = listener.address();
        let serving = tokio::spawn(async move {
            let mut results = Vec::new();
            for _ in 0..4 {
                let stream = TokioIo::new(listener.accept().await);
                let server = hyper::server::conn::http1::Builder::new();
                let ok = |_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) };
                results.push(server.serve_connection(stream, service_fn(ok)).await.is_ok());
            }
            results
        });
        for turn in 0..4 {
            let mut stream = connect(&pool, address).await;
            if turn % 2 == 0 {
                let half = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\nhalf";
                tokio::io::AsyncWriteExt::write_all(&mut stream, half).await?;
                drop(stream);
                continue;
            }
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            sender.ready().await?;
            let answer = sender.send_request(request(turn, &Bytes::new())).await?;
            assert_eq!(answer.status(), 200);
            drop(sender);
            connection.await??;
        }
        let results = serving.await?;
        assert_eq!([results[1], results[3]], [true, true]);
        Ok(())
    })
}
