//! What a protobuf message consists of, told from its bytes before it is decoded: two bytes on the wire may become hundreds
//! in memory.

use crate::translate::Refusal;
use gantry_proto::wire::v2::Code;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The fields of a message that are looked at. All others take no more memory decoded than on the wire.
pub(crate) struct Shape(pub(super) &'static [Field]);

pub(super) struct Field {
    pub(super) number: u32,
    pub(super) holds: Holds,
}

pub(super) enum Holds {
    /// Text that is repeated in answers: at most so many bytes.
    Text { name: &'static str, bytes_max: usize },
    /// One message. What it repeats is counted together if it comes several times: decoding would merge it.
    One(&'static Shape),
    /// Any number of something.
    Many(Many),
}

pub(super) struct Many {
    /// For the refusal: "messages".
    pub(super) name: &'static str,
    pub(super) max: usize,
    /// What a client is told that has more.
    pub(super) code: Code,
    /// Where they are counted: each of a message's repeated fields has a place of its own, those of its [`Holds::One`] included.
    pub(super) place: usize,
    /// Bytes that each takes in memory, besides its texts.
    pub(super) weight: usize,
    /// What each consists of, if something in it repeats again.
    pub(super) each: Option<&'static Shape>,
}

/// Places for the counts of one message's repeated fields.
pub(super) const PLACES: usize = 4;

#[derive(Debug)]
pub(crate) enum Unfit {
    Malformed(DecodeError),
    TooMuch(Refusal),
}

impl From<DecodeError> for Unfit {
    fn from(error: DecodeError) -> Unfit {
        Unfit::Malformed(error)
    }
}

impl Shape {
    /// How many bytes a message of this shape takes in memory besides its texts and bodies. Refuses one with too much in it.
    pub(crate) fn weigh(&self, message: &[u8]) -> Result<usize, Unfit> {
        self.walk(message, &mut [0; PLACES])
    }

    fn walk(&self, mut rest: &[u8], counts: &mut [usize; PLACES]) -> Result<usize, Unfit> {
        let mut weight = 0;
        while !rest.is_empty() {
            let (number, wire_type) = decode_key(&mut rest)?;
            let field = self.0.iter().find(|field| field.number == number);
            let (Some(field), WireType::LengthDelimited) = (field, wire_type) else {
                skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
                continue;
            };
            let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
            let Some((inner, after)) = rest.split_at_checked(length) else {
                // Decoding fails there, and says it better.
                return Ok(weight);
            };
            rest = after;
            match &field.holds {
                Holds::Text { name, bytes_max } if length > *bytes_max => {
                    let message = format!("the {name} has {length} bytes, at most {bytes_max} are allowed");
                    return Err(Unfit::TooMuch(Refusal::new(Code::BadRequest, message)));
                }
                Holds::Text { .. } => {}
                Holds::One(shape) => weight += shape.walk(inner, counts)?,
                Holds::Many(many) => {
                    counts[many.place] += 1;
                    if counts[many.place] > many.max {
                        let message = format!("there are more than {} {}", many.max, many.name);
                        return Err(Unfit::TooMuch(Refusal::new(many.code, message)));
                    }
                    weight += many.weight;
                    if let Some(each) = many.each {
                        weight += each.walk(inner, &mut [0; PLACES])?;
                    }
                }
            }
        }
        Ok(weight)
    }
}
