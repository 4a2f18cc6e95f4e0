//! What the loop must read of a body: the version, and whether a bookmark ends a list.

use std::borrow::Cow;

use serde::Deserialize;

use crate::identity::ResourceVersion;
use crate::object::ObjectError;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

/// `metadata.resourceVersion`, borrowed while it is read; an object without a name is refused.
pub(super) fn version_of(body: &[u8]) -> Result<ResourceVersion, String> {
    let object: Object<'_> = read(body)?;
    if object.metadata.name.is_empty() {
        return Err(ObjectError::Nameless.to_string());
    }
    Ok(ResourceVersion::new(&object.metadata.resource_version))
}

/// What a bookmark says.
pub(super) struct Bookmark {
    pub(super) version: ResourceVersion,
    /// Does it end the initial events of a streamed list?
    pub(super) ends_list: bool,
}

pub(super) fn bookmark_of(body: &[u8]) -> Result<Bookmark, String> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        resource_version: Cow<'a, str>,
        #[serde(borrow)]
        annotations: Option<Annotations<'a>>,
    }
    #[derive(Deserialize)]
    struct Annotations<'a> {
        #[serde(borrow, default, rename = "k8s.io/initial-events-end")]
        ends_list: Cow<'a, str>,
    }
    let Object { metadata } = read(body)?;
    Ok(Bookmark {
        version: ResourceVersion::new(&metadata.resource_version),
        ends_list: metadata.annotations.is_some_and(|annotations| annotations.ends_list == "true"),
    })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| ObjectError::from(error).to_string())
}
