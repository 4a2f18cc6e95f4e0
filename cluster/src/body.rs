//! Reading bodies, bounded.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;

use crate::error::RequestError;

/// Reads a whole body; one that came in a single frame is not copied.
pub(crate) async fn collect(mut body: Body, limit: usize) -> Result<Bytes, RequestError> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| RequestError::Unreachable(Box::new(error)))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > limit {
            return Err(RequestError::TooLarge { limit });
        }
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            Some(begin) => {
                rest.reserve(begin.len() + data.len());
                rest.extend_from_slice(&begin);
                rest.extend_from_slice(&data);
            }
            None => rest.extend_from_slice(&data),
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}
