//! prost as tonic's codec, with a look at what a message would cost before it is built.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use crate::budget::{self, OverBudget};
use crate::v1;

/// A message whose cost is known before it is decoded.
pub trait Bounded: Message + Default + Send + 'static {
    /// May it be decoded?
    ///
    /// # Errors
    /// Which bound it exceeds.
    fn check(bytes: &[u8], first: bool) -> Result<(), OverBudget>;
}

impl Bounded for v1::AgentMessage {
    fn check(bytes: &[u8], first: bool) -> Result<(), OverBudget> {
        budget::agent_message(bytes, first)
    }
}

impl Bounded for v1::HubMessage {
    fn check(bytes: &[u8], _: bool) -> Result<(), OverBudget> {
        budget::hub_message(bytes)
    }
}

/// The codec of the session, on both sides.
#[derive(Clone, Debug)]
pub struct SessionCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SessionCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Bounded> Codec for SessionCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder { first: true, message: PhantomData }
    }
}

/// Decodes the messages of one stream.
#[derive(Debug)]
pub struct BoundedDecoder<U> {
    first: bool,
    message: PhantomData<U>,
}

impl<U: Bounded> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Bodies are slices of this, not copies.
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let first = std::mem::replace(&mut self.first, false);
        U::check(&bytes, first).map_err(|over| Status::resource_exhausted(over.to_string()))?;
        // What is wrong with it may quote what it holds.
        U::decode(bytes).map(Some).map_err(|_| Status::internal("a message that cannot be decoded"))
    }
}
