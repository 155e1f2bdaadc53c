//! Proofs that other crates' programs run on a pool as they are: each over either engine and on
//! either kind of runtime, with every slot free at the end.

mod axum;
mod http;
mod proxy;
mod quic;
mod redis;
mod support;
mod tonic;
mod websocket;
