//! The frames of Redis by a codec of `tokio_util`.

use std::collections::HashMap;

use futures_util::{SinkExt, StreamExt};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use tokio_util::codec::Framed;

use crate::support::{Listener, Outcome, connect, on_all, pattern};

fn bulk(bytes: impl Into<Vec<u8>>) -> BytesFrame {
    BytesFrame::BulkString(bytes.into().into())
}

/// Answers the commands SET and GET.
fn answer(command: BytesFrame, values: &mut HashMap<Vec<u8>, BytesFrame>) -> BytesFrame {
    let BytesFrame::Array(parts) = command else { panic!("{command:?}") };
    let bytes = |index: usize| match &parts[index] {
        BytesFrame::BulkString(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    match &bytes(0)[..] {
        b"SET" => {
            values.insert(bytes(1), parts[2].clone());
            BytesFrame::SimpleString("OK".into())
        }
        b"GET" => values.get(&bytes(1)).cloned().unwrap_or(BytesFrame::Null),
        other => BytesFrame::Error(String::from_utf8_lossy(other).into_owned().into()),
    }
}

#[test]
fn commands_and_answers_are_framed() -> Outcome {
    on_all(|pool| async move {
        let listener = Listener::bind(&pool).await;
        let address = listener.address();
        let serving = tokio::spawn(async move {
            let mut frames = Framed::new(listener.accept().await, Resp2::default());
            let mut values = HashMap::new();
            while let Some(command) = frames.next().await {
                frames.send(answer(command.unwrap(), &mut values)).await.unwrap();
            }
        });
        let mut frames = Framed::new(connect(&pool, address).await, Resp2::default());
        // Pipelined: sixteen commands at a time.
        for round in 0..20 {
            for number in 0..16 {
                let (key, len) = (format!("key {number}"), (number * 997 + round * 131) % 9000);
                let parts = [bulk("SET"), bulk(key), bulk(pattern(number + round, len))];
                frames.feed(BytesFrame::Array(parts.into())).await?;
            }
            SinkExt::<BytesFrame>::flush(&mut frames).await?;
            for _ in 0..16 {
                let answer = frames.next().await.ok_or("it ends early")??;
                assert_eq!(answer, BytesFrame::SimpleString("OK".into()));
            }
            for number in 0..17 {
                let parts = [bulk("GET"), bulk(format!("key {number}"))];
                frames.feed(BytesFrame::Array(parts.into())).await?;
            }
            SinkExt::<BytesFrame>::flush(&mut frames).await?;
            for number in 0..16 {
                let expected = bulk(pattern(number + round, (number * 997 + round * 131) % 9000));
                let answer = frames.next().await.ok_or("it ends early")??;
                assert!(answer == expected, "key {number} in round {round}");
            }
            assert_eq!(frames.next().await.ok_or("it ends early")??, BytesFrame::Null);
        }
        drop(frames);
        serving.await?;
        Ok(())
    })
}
