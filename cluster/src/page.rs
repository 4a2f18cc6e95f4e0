//! A page of a list, its items as slices of the page.

use bytes::Bytes;
use lockstep_engine::ResourceVersion;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::position;

/// Why a page could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not a list.
    #[error("not a list: {why}")]
    NotAList {
        /// Positions and categories, never values.
        why: String,
    },
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The objects, as the server sent them. They share the page's memory.
    pub items: Vec<Bytes>,
    /// Set when there are more.
    pub continue_token: Option<String>,
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
}

/// Reads a page.
///
/// # Errors
/// When it is not a list. A single item that is no object does not make it one: items are cut by
/// JSON syntax only.
pub fn page(body: &Bytes) -> Result<ListPage, PageError> {
    #[derive(Deserialize)]
    struct List<'a> {
        metadata: Metadata,
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        resource_version: String,
        #[serde(default, rename = "continue")]
        continue_token: Option<String>,
    }
    let list: List<'_> =
        serde_json::from_slice(body).map_err(|error| PageError::NotAList { why: position(&error) })?;
    let items = list.items.unwrap_or_default();
    Ok(ListPage {
        items: items.into_iter().map(|item| body.slice_ref(item.get().as_bytes())).collect(),
        continue_token: list.metadata.continue_token.filter(|token| !token.is_empty()),
        resource_version: ResourceVersion::new(&list.metadata.resource_version),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_slices_and_null_is_an_empty_list() {
        let body = Bytes::from_static(
            br#"{"kind":"List","metadata":{"resourceVersion":"7","continue":""},"items":[{"a":1}, 5]}"#,
        );
        let read = page(&body).unwrap();
        assert_eq!(read.items, [Bytes::from_static(br#"{"a":1}"#), Bytes::from_static(b"5")]);
        assert_eq!((read.continue_token, read.resource_version.as_str()), (None, "7"));
        let empty = page(&Bytes::from_static(br#"{"metadata":{"continue":"x"},"items":null}"#)).unwrap();
        assert_eq!((empty.items.len(), empty.continue_token.as_deref()), (0, Some("x")));
    }

    #[test]
    fn an_error_names_no_value() {
        let error = page(&Bytes::from_static(br#"{"metadata":"canary"}"#)).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
