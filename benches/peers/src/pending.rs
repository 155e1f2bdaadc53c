//! Figures of parts of the library that this program cannot measure yet: listed, so that none is forgotten.

use crate::report::{Bound, Figure};

/// Each goes to the part that will measure it when it can.
pub fn figures() -> Vec<Figure> {
    let figure = |group: &str, case: &str, limit: f64, of: &str| {
        Figure::new(group, case, Bound::AtMost(limit), of, None)
    };
    let runtimes = "Runtimes";
    vec![
        figure(
            "Kernel side",
            "ingest, socket to `O_DIRECT` file: CPU per GB",
            0.6,
            "× tokio with `tokio::fs`",
        ),
        figure("Kernel side", "echo through `custom_runtime`", 1.1, "× the same server on the bare crate"),
        figure(runtimes, "`tokio_recv`, 64 connections × 512 B, time per message", 1.0, "× tokio + BytesMut"),
        figure(
            runtimes,
            "`tokio_recv`, 512 connections × 512 B, time per message",
            1.0,
            "× tokio + BytesMut",
        ),
    ]
}
