//! Messages of a gRPC body, one after the other.

use crate::memory::{Exhausted, Held};
use bytes::{Buf as _, Bytes, BytesMut};
use hyper::body::Body;
use std::future::poll_fn;
use std::pin::Pin;
use tonic::Status;

/// What precedes a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Room for a message that arrives in parts is made when so much of it is there: a length alone costs nothing.
const RESERVED_AT_ONCE: usize = 256 << 10;

/// Reads messages from a body. May be dropped and asked again at any time: nothing is lost.
pub(crate) struct MessageReader<B> {
    body: B,
    /// What is there and was not given out: `first` as it came, or all of it in `gathered`.
    first: Bytes,
    gathered: BytesMut,
    /// The length of the message that is arriving. Its memory is taken.
    arriving: Option<usize>,
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("the message has {bytes} bytes, at most {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
    #[error(transparent)]
    Exhausted(Exhausted),
    #[error("the message is compressed, which this server does not understand")]
    Compressed,
    #[error("the body ends before its message does")]
    Cut,
    #[error("a call of this method has one message")]
    NotOne,
    #[error("the client went away: {0}")]
    Gone(hyper::Error),
}

impl From<Unread> for Status {
    fn from(error: Unread) -> Status {
        let message = error.to_string();
        match error {
            Unread::TooLarge { .. } | Unread::Exhausted(_) => Status::resource_exhausted(message),
            Unread::Compressed => Status::unimplemented(message),
            Unread::Cut | Unread::NotOne => Status::internal(message),
            Unread::Gone(_) => Status::cancelled(message),
        }
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> MessageReader<B> {
    pub(crate) fn new(body: B) -> MessageReader<B> {
        MessageReader { body, first: Bytes::new(), gathered: BytesMut::new(), arriving: None }
    }

    /// The only message of a call, and the body's end.
    pub(crate) async fn only(&mut self, bytes_max: usize, held: &mut Held) -> Result<Bytes, Unread> {
        let message = self.next(bytes_max, held).await?.ok_or(Unread::Cut)?;
        if self.there() > 0 || (!self.body.is_end_stream() && self.fill().await?) {
            return Err(Unread::NotOne);
        }
        Ok(message)
    }

    /// The next message; `None` at the body's end. A message's bytes are added to `held`.
    pub(crate) async fn next(&mut self, bytes_max: usize, held: &mut Held) -> Result<Option<Bytes>, Unread> {
        while self.there() < PREFIX_BYTES {
            if !self.fill().await? {
                return if self.there() == 0 { Ok(None) } else { Err(Unread::Cut) };
            }
        }
        let bytes = match self.arriving {
            Some(bytes) => bytes,
            None => {
                let mut prefix = self.peek();
                let compressed = prefix.get_u8() != 0;
                let bytes = prefix.get_u32() as usize;
                if compressed {
                    return Err(Unread::Compressed);
                }
                if bytes > bytes_max {
                    return Err(Unread::TooLarge { bytes, max: bytes_max });
                }
                held.grow(bytes).map_err(Unread::Exhausted)?;
                *self.arriving.insert(bytes)
            }
        };
        while self.there() < PREFIX_BYTES + bytes {
            if !self.fill().await? {
                return Err(Unread::Cut);
            }
        }
        self.arriving = None;
        Ok(Some(self.take(PREFIX_BYTES + bytes).slice(PREFIX_BYTES..)))
    }

    fn there(&self) -> usize {
        self.first.len() + self.gathered.len()
    }

    fn peek(&self) -> &[u8] {
        if self.gathered.is_empty() { &self.first } else { &self.gathered }
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        if self.gathered.is_empty() {
            return self.first.split_to(bytes);
        }
        let taken = self.gathered.split_to(bytes).freeze();
        if self.gathered.is_empty() {
            self.gathered = BytesMut::new();
        }
        taken
    }

    /// Waits for more bytes. False: the body has ended.
    async fn fill(&mut self) -> Result<bool, Unread> {
        loop {
            let frame = match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                None => return Ok(false),
                Some(frame) => frame.map_err(Unread::Gone)?,
            };
            match frame.into_data() {
                Ok(data) if !data.is_empty() => {
                    self.add(data);
                    return Ok(true);
                }
                // Trailers, which no client of this protocol sends, or nothing.
                _ => {}
            }
        }
    }

    fn add(&mut self, data: Bytes) {
        if self.there() == 0 {
            self.first = data;
            return;
        }
        let whole = self.arriving.map_or(0, |bytes| PREFIX_BYTES + bytes);
        let there = self.there() + data.len();
        if self.gathered.is_empty() {
            self.gathered.reserve(whole.min(RESERVED_AT_ONCE).max(there));
            self.gathered.extend_from_slice(&std::mem::take(&mut self.first));
        }
        if there > self.gathered.capacity() {
            self.gathered.reserve(whole.max(there) - self.gathered.len());
        }
        self.gathered.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryBudget, Peer};
    use hyper::body::Frame;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    struct Parts(VecDeque<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    fn reader(parts: &[&[u8]]) -> MessageReader<Parts> {
        MessageReader::new(Parts(parts.iter().map(|part| Bytes::copy_from_slice(part)).collect()))
    }

    fn held() -> (Arc<MemoryBudget>, Held) {
        let budget = MemoryBudget::new(1 << 20, 100);
        let held = budget.take(&Arc::new(Peer::default()), 0).unwrap();
        (budget, held)
    }

    /// Nothing in these tests waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(future).expect("it does not wait")
    }

    #[test]
    fn a_message_in_one_part_is_not_copied() {
        let part = Bytes::from(framed(b"hello"));
        let mut reader = MessageReader::new(Parts([part.clone()].into()));
        let (budget, mut held) = held();
        let message = now(reader.only(5, &mut held)).unwrap();
        assert_eq!(&message[..], b"hello");
        assert_eq!(message.as_ptr(), part[PREFIX_BYTES..].as_ptr());
        assert_eq!(budget.used(), 5);
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_length_alone() {
        let (budget, mut held) = held();
        let length = &framed(&[0; 100])[..PREFIX_BYTES];
        let error = now(reader(&[length]).only(99, &mut held)).unwrap_err();
        assert!(matches!(error, Unread::TooLarge { bytes: 100, max: 99 }), "{error:?}");
        assert_eq!(Status::from(error).code(), tonic::Code::ResourceExhausted);
        let other = budget.take(&Arc::new(Peer::default()), 1 << 19).unwrap();
        let error = now(reader(&[&[0, 0, 0x20, 0, 0]]).only(usize::MAX, &mut held)).unwrap_err();
        assert!(matches!(error, Unread::Exhausted(_)), "{error:?}");
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn memory_is_taken_before_the_message_is_there() {
        let (budget, mut held) = held();
        let error = now(reader(&[&framed(&[0; 100])[..20]]).only(100, &mut held)).unwrap_err();
        assert!(matches!(error, Unread::Cut), "{error:?}");
        assert_eq!(budget.used(), 100);
    }

    #[test]
    fn bodies_that_are_not_one_message_are_refused() {
        let (_, mut held) = held();
        let one = framed(b"x");
        for (parts, expected) in [
            (vec![], "ends before"),
            (vec![&one[..3]], "ends before"),
            (vec![&one[..], &one[..]], "has one message"),
            (vec![&[1, 0, 0, 0, 1, 0][..]], "compressed"),
        ] {
            let error = now(reader(&parts).only(100, &mut held)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..5),
            cuts in proptest::collection::vec(1_usize..1500, 1..20),
        ) {
            let whole: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let (mut parts, mut rest) = (Vec::new(), &whole[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                parts.push(part);
                rest = after;
            }
            let (budget, mut held) = held();
            let mut reader = reader(&parts);
            for message in &messages {
                prop_assert_eq!(&now(reader.next(2000, &mut held)).unwrap().unwrap()[..], &message[..]);
            }
            prop_assert!(now(reader.next(2000, &mut held)).unwrap().is_none());
            prop_assert_eq!(budget.used(), messages.iter().map(Vec::len).sum::<usize>());
        }
    }
}
