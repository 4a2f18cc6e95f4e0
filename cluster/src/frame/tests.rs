use proptest::prelude::*;

use super::*;

fn lines(chunks: &[&[u8]], limit: usize) -> Result<Vec<Bytes>, FrameError> {
    let mut splitter = LineSplitter::new(limit);
    let mut out = Vec::new();
    for chunk in chunks {
        splitter.push(Bytes::copy_from_slice(chunk));
        while let Some(line) = splitter.next_line()? {
            out.push(line);
        }
    }
    out.extend(splitter.finish());
    Ok(out)
}

proptest! {
    #[test]
    fn lines_do_not_depend_on_how_the_stream_is_cut(
        text in "[a-c\n\r ]{0,60}",
        cuts in proptest::collection::vec(0_usize..60, 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let bytes = text.as_bytes();
        let mut chunks = Vec::new();
        let mut begin = 0;
        for cut in cuts {
            chunks.push(&bytes[begin..cut]);
            begin = cut;
        }
        chunks.push(&bytes[begin..]);
        let expected: Vec<_> = text
            .split('\n')
            .filter(|line| !line.trim().is_empty())
            .map(|line| Bytes::copy_from_slice(line.as_bytes()))
            .collect();
        prop_assert_eq!(lines(&chunks, 100).unwrap(), expected);
    }
}

#[test]
fn a_line_within_one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"one\ntwo\n");
    let mut splitter = LineSplitter::new(100);
    splitter.push(chunk.clone());
    let line = splitter.next_line().unwrap().unwrap();
    assert_eq!(line.as_ptr(), chunk.as_ptr());
}

#[test]
fn a_line_that_is_too_long_is_an_error_in_time() {
    assert_eq!(lines(&[b"12345678"], 8).unwrap().len(), 1);
    assert_eq!(lines(&[b"123456789\n"], 8), Err(FrameError::TooLong { limit: 8 }));
    assert_eq!(lines(&[b"12345", b"6789"], 8), Err(FrameError::TooLong { limit: 8 }));
}

fn read(text: &'static str) -> Frame {
    frame(&Bytes::from_static(text.as_bytes()))
}

#[test]
fn events() {
    assert_eq!(
        read(r#"{"type":"ADDED","object":{"a":1.50}}"#),
        Event::Applied(Bytes::from_static(b"{\"a\":1.50}"))
    );
    assert_eq!(read(r#"{"type":"MODIFIED","object":{}}"#), Event::Applied(Bytes::from_static(b"{}")));
    assert_eq!(read(r#"{"type":"DELETED","object":{}}"#), Event::Deleted(Bytes::from_static(b"{}")));
    assert_eq!(read(r#"{"type":"BOOKMARK","object":{}}"#), Event::Bookmark(Bytes::from_static(b"{}")));
    let expired = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
    assert_eq!(read(expired), Event::Error(RequestFailure::Expired));
    assert_eq!(read(r#"{"kind":"Status","code":410}"#), Event::Error(RequestFailure::Expired));
    let broken = r#"{"type":"ERROR","object":{"kind":"Status","code":500}}"#;
    assert_eq!(read(broken), Event::Error(RequestFailure::Server { code: 500 }));
}

#[test]
fn what_cannot_be_read_is_told_without_values() {
    for text in
        [r#"{"type":"ADDED","object":{"x":"canary"#, "canary", r#"{"type":"canary","object":{}}"#, "{}"]
    {
        let Event::Undecodable { why } = read(text) else { panic!("{text}") };
        assert!(!why.contains("canary"), "{why}");
    }
}

#[test]
fn the_object_is_a_slice_of_the_line() {
    let line = Bytes::from_static(br#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#);
    let Event::Applied(body) = frame(&line) else { panic!("not applied") };
    assert!(line.as_ptr_range().contains(&body.as_ptr()));
}
