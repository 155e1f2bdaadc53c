//! tonic, unary calls and streams, with messages that are plain bytes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::tonic::body::Body;
use ::tonic::client::Grpc as Client;
use ::tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use ::tonic::codegen::http::{self, uri::PathAndQuery};
use ::tonic::server::{Grpc as Server, NamedService, StreamingService, UnaryService};
use ::tonic::transport::server::Connected;
use ::tonic::transport::{Channel, Endpoint, Uri};
use ::tonic::{Request, Response, Status, Streaming};
use bytes::{Buf, BufMut, Bytes};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tower::{Service, service_fn};
use uring_arena::tokio::Stream;

use crate::support::{Listener, Outcome, connect, on_all, pattern};

/// A codec of messages that are bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A service of two methods: one reverses a message, one answers a stream message by message.
#[derive(Debug, Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "proof.Echo";
}

struct Reverse;

impl UnaryService<Bytes> for Reverse {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move {
            let mut bytes = request.into_inner().to_vec();
            if bytes.is_empty() {
                return Err(Status::invalid_argument("nothing to reverse"));
            }
            bytes.reverse();
            Ok(Response::new(bytes.into()))
        })
    }
}

struct Repeat;

impl StreamingService<Bytes> for Repeat {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner().boxed())) })
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut server = Server::new(Plain);
            Ok(match request.uri().path() {
                "/proof.Echo/Reverse" => server.unary(Reverse, request).await,
                _ => server.streaming(Repeat, request).await,
            })
        })
    }
}

/// A stream of a pool that tells tonic nothing about its peer.
struct Io(Stream);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, room)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn ready_client(channel: &Channel) -> Result<Client<Channel>, Status> {
    let mut client = Client::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    Ok(client)
}

async fn calls(channel: Channel) -> Outcome {
    for len in [1, 10, 3000, 200_000] {
        let mut client = ready_client(&channel).await?;
        let sent = Bytes::from(pattern(len, len));
        let path = PathAndQuery::from_static("/proof.Echo/Reverse");
        let answer = client.unary(Request::new(sent.clone()), path, Plain).await?.into_inner();
        assert!(answer.iter().eq(sent.iter().rev()), "{len} bytes");
    }
    let mut client = ready_client(&channel).await?;
    let path = PathAndQuery::from_static("/proof.Echo/Reverse");
    let refused = client.unary(Request::new(Bytes::new()), path, Plain).await.unwrap_err();
    assert_eq!(refused.message(), "nothing to reverse");

    let mut client = ready_client(&channel).await?;
    let messages: Vec<Bytes> =
        (0..200).map(|number| pattern(number, number * 97 % 20_000).into()).collect();
    let path = PathAndQuery::from_static("/proof.Echo/Repeat");
    let requests = Request::new(stream::iter(messages.clone()));
    let answers = client.streaming(requests, path, Plain).await?.into_inner();
    let answers: Vec<Bytes> = answers.try_collect().await?;
    assert!(answers == messages);
    Ok(())
}

#[test]
fn unary_calls_and_streams_come_back() -> Outcome {
    on_all(|pool| async move {
        let listener = Listener::bind(&pool).await;
        let address: SocketAddr = listener.address();
        let incoming = stream::unfold(listener, |listener| async move {
            let stream = Io(listener.accept().await);
            Some((Ok::<_, io::Error>(stream), listener))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let server = ::tonic::transport::Server::builder().add_service(Echo);
            let stopped = async move { drop(stopped.await) };
            server.serve_with_incoming_shutdown(incoming.boxed(), stopped).await
        });
        let connector = service_fn(move |_: Uri| {
            let pool = pool.clone();
            async move { Ok::<_, Infallible>(TokioIo::new(connect(&pool, address).await)) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await?;
        let (first, second) = tokio::join!(calls(channel.clone()), calls(channel.clone()));
        first?;
        second?;
        drop(channel);
        drop(stop);
        serving.await??;
        Ok(())
    })
}
