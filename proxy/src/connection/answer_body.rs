//! What a call is answered with, on its way to the client. While it is there the call is open, and what it holds is held.
//!
//! HTTP/2 takes a frame as soon as the client has room for one byte of it, and keeps the rest. So large data goes in pieces,
//! and its last byte alone: when the body has ended, all but one byte of it has left.

use super::activity::OpenCall;
use super::stream_task::Reading;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// Bytes that HTTP/2 gets at once.
const PIECE_BYTES: usize = 64 << 10;
/// Up to here, HTTP/2 may keep an answer.
const SMALL_BYTES: usize = 1 << 10;

/// The body of an answer.
pub(crate) struct AnswerBody {
    content: Content,
    /// Of the data that came last from `content`, what was not passed on.
    rest: Bytes,
    _call: Option<OpenCall>,
}

enum Content {
    /// One message in its gRPC frame, then success.
    Message(Bytes),
    Success,
    Streamed(tonic::body::Body),
    Ended,
}

impl AnswerBody {
    /// One message, framed.
    pub(crate) fn message(framed: Bytes, call: OpenCall) -> AnswerBody {
        AnswerBody { content: Content::Message(framed), rest: Bytes::new(), _call: Some(call) }
    }

    pub(crate) fn streamed(body: tonic::body::Body, call: OpenCall) -> AnswerBody {
        AnswerBody { content: Content::Streamed(body), rest: Bytes::new(), _call: Some(call) }
    }

    /// Nothing: the status is in the headers.
    pub(crate) fn empty() -> AnswerBody {
        AnswerBody { content: Content::Ended, rest: Bytes::new(), _call: None }
    }

    fn piece(&mut self, mut data: Bytes) -> Bytes {
        if data.len() <= SMALL_BYTES {
            return data;
        }
        self.rest = data.split_off(PIECE_BYTES.min(data.len() - 1));
        data
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            let mut rest = std::mem::take(&mut self.rest);
            if rest.len() > 1 {
                self.rest = rest.split_off(PIECE_BYTES.min(rest.len() - 1));
            }
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        let frame = match &mut self.content {
            Content::Message(framed) => {
                let framed = std::mem::take(framed);
                self.content = Content::Success;
                Some(Ok(Frame::data(framed)))
            }
            Content::Success => {
                self.content = Content::Ended;
                Some(Ok(Frame::trailers(success())))
            }
            Content::Streamed(body) => ready!(Pin::new(body).poll_frame(cx)),
            Content::Ended => None,
        };
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(data) => Frame::data(self.piece(data)),
                Err(other) => other,
            })
        }))
    }
}

fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = self.poll(cx);
        Reading::note(if frame.is_ready() { Reading::Offered } else { Reading::Waits });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.content {
                Content::Ended => true,
                Content::Streamed(body) => body.is_end_stream(),
                Content::Message(_) | Content::Success => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(data: Bytes) -> Vec<usize> {
        let body = tonic::body::Body::new(http_body_util::Full::new(data));
        let mut body = AnswerBody { content: Content::Streamed(body), rest: Bytes::new(), _call: None };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut pieces = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            pieces.push(frame.unwrap().into_data().unwrap().len());
        }
        assert!(body.is_end_stream());
        pieces
    }

    #[test]
    fn large_data_goes_in_pieces_and_its_last_byte_alone() {
        assert_eq!(pieces(Bytes::from(vec![0; 1024])), [1024]);
        assert_eq!(pieces(Bytes::from(vec![0; 1025])), [1024, 1]);
        assert_eq!(pieces(Bytes::from(vec![0; PIECE_BYTES])), [PIECE_BYTES - 1, 1]);
        assert_eq!(pieces(Bytes::from(vec![0; PIECE_BYTES + 1])), [PIECE_BYTES, 1]);
        assert_eq!(pieces(Bytes::from(vec![0; 2 * PIECE_BYTES])), [PIECE_BYTES, PIECE_BYTES - 1, 1]);
    }

    #[test]
    fn a_message_is_followed_by_success() {
        let mut body =
            AnswerBody { content: Content::Message(Bytes::from_static(b"x")), rest: Bytes::new(), _call: None };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut next = || match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(frame) => frame.map(Result::unwrap),
            Poll::Pending => panic!("it has all it needs"),
        };
        assert_eq!(&next().unwrap().into_data().unwrap()[..], b"x");
        let trailers = next().unwrap().into_trailers().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
        assert!(next().is_none());
    }
}
