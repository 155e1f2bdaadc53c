//! tokio, as its users write it: through a `BytesMut`, and `tokio::fs` with its blocking threads
//! and the page cache.

use std::error::Error;
use std::io;
use std::net::TcpStream;
use std::path::Path;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::stream::BLOCK_BYTES;
use super::systems::{Ingest, Room};

pub struct Tokio {
    runtime: Runtime,
    room: Room,
}

impl Tokio {
    pub fn new(room: Room) -> io::Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_all().build()?, room })
    }
}

impl Ingest for Tokio {
    fn ingest(
        &mut self,
        socket: TcpStream,
        path: &Path,
        bytes: usize,
    ) -> Result<(), Box<dyn Error>> {
        self.runtime.block_on(async {
            socket.set_nonblocking(true)?;
            let mut socket = tokio::net::TcpStream::from_std(socket)?;
            let file = std::fs::File::create(path)?;
            self.room.make(&file, bytes)?;
            let mut file = tokio::fs::File::from_std(file);
            // Whole blocks to its threads, not its usual 2 MiB at most of small ones.
            file.set_max_buf_size(BLOCK_BYTES);
            let mut block = BytesMut::with_capacity(BLOCK_BYTES);
            loop {
                let read = socket.read_buf(&mut block).await?;
                if block.len() >= BLOCK_BYTES || read == 0 {
                    file.write_all(&block.split().freeze()).await?;
                    block.reserve(BLOCK_BYTES);
                }
                if read == 0 {
                    break;
                }
            }
            file.flush().await?;
            Ok(())
        })
    }
}
