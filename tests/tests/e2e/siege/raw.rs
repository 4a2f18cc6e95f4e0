//! An agent that sends what no agent would.

use anyhow::Result;
use bytes::{BufMut as _, Bytes};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

/// Bytes in and out, as they are.
#[derive(Clone, Copy, Debug, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        use bytes::Buf as _;
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// The encoded `AgentMessage` of a batch with one section of `count` empty items: two bytes each.
#[must_use]
pub(super) fn empty_items(count: usize) -> Bytes {
    let items = [0x1a, 0x00].repeat(count);
    nested(3, &nested(2, &items)).into()
}

/// A field with a length: its number, the length, the content.
fn nested(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

/// Sends one message as the first of a session, compressed; how the session ended.
///
/// # Errors
/// When nothing answers.
pub(super) async fn send_first(address: &str, token: &str, message: Bytes) -> Result<Status> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let mut client = tonic::client::Grpc::new(channel).send_compressed(CompressionEncoding::Zstd);
    client.ready().await?;
    let (say, said) = tokio::sync::mpsc::channel(1);
    say.send(message).await?;
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(said));
    let value: MetadataValue<_> = format!("Bearer {token}").parse()?;
    request.metadata_mut().insert("authorization", value);
    let path = PathAndQuery::from_static("/lockstep.v1.Hub/Session");
    let mut answers = match client.streaming(request, path, RawCodec).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Ok(status),
    };
    loop {
        match answers.message().await {
            Ok(Some(())) => {}
            Ok(None) => return Ok(Status::ok("the stream ended")),
            Err(status) => return Ok(status),
        }
    }
}
