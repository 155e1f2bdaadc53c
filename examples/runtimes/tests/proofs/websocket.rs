//! TLS by rustls, and WebSockets on it.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

use crate::quic::certificate;
use crate::support::{Listener, Outcome, connect, on_all, pattern};

#[test]
fn messages_come_back_through_tls() -> Outcome {
    on_all(|pool| async move {
        let (made, key) = certificate::make().map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.clone())?;
        let server = ServerConfig::builder().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(server.with_single_cert(vec![made], key)?));
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(client));

        let listener = Listener::bind(&pool).await;
        let address = listener.address();
        let serving = tokio::spawn(async move {
            let stream = acceptor.accept(listener.accept().await).await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            while let Some(message) = socket.next().await {
                match message.unwrap() {
                    Message::Close(_) => break,
                    message => socket.send(message).await.unwrap(),
                }
            }
            // The close goes out.
            while socket.next().await.is_some() {}
            // And behind it the end of TLS, without which the client is told of an attack.
            socket.get_mut().shutdown().await.unwrap();
        });
        let name = ServerName::try_from(certificate::NAME)?;
        let stream = connector.connect(name, connect(&pool, address).await).await?;
        let (mut socket, _) = client_async("ws://localhost/", stream).await?;
        for (seed, len) in [0, 1, 125, 126, 2048, 65_535, 65_536, 500_000].into_iter().enumerate() {
            let sent = Message::binary(pattern(seed, len));
            socket.send(sent.clone()).await?;
            let came = socket.next().await.ok_or("it ends early")??;
            assert!(came == sent, "{len} bytes");
        }
        // Many on their way at once.
        let (mut sending, mut receiving) = socket.split();
        let send = async {
            for number in 0..500 {
                sending.feed(Message::text(format!("message {number}"))).await?;
            }
            sending.flush().await
        };
        let receive = async {
            for number in 0..500 {
                let came = receiving.next().await.ok_or("it ends early")??;
                assert_eq!(came.into_text()?.as_str(), format!("message {number}"));
            }
            Outcome::Ok(())
        };
        let (sent, received) = tokio::join!(send, receive);
        sent?;
        received?;
        let mut socket = sending.reunite(receiving)?;
        socket.close(None).await?;
        while let Some(message) = socket.next().await {
            assert!(message?.is_close());
        }
        serving.await?;
        Ok(())
    })
}
