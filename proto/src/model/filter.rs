use super::ids::fnv1a;
use super::limits::{FILTER_BYTES_MAX, TAGS_MAX};
use std::collections::HashSet;

/// Which messages of a topic a consumer takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterExpression {
    Tag(TagFilter),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagFilter {
    /// `*`: every message, tagged or not.
    All,
    /// `a || b`: messages with one of these tags. Never empty, at most [`TAGS_MAX`], none of them twice.
    AnyOf(Vec<Tag>),
}

/// One tag with the hash that index entries carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    text: String,
    hash: u32,
}

/// Why a filter expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// Nothing is left between the separators.
    #[error("the tag expression {0:?} names no tag; use `*` for every message or `a || b`")]
    NoTag(String),
    /// Each message is compared with all of them.
    #[error("the tag expression names {0} tags, at most {TAGS_MAX} are allowed")]
    TooManyTags(usize),
    /// Likewise.
    #[error("the filter expression has {0} bytes, at most {FILTER_BYTES_MAX} are allowed")]
    TooLong(usize),
}

impl FilterExpression {
    pub const ALL: FilterExpression = FilterExpression::Tag(TagFilter::All);

    /// Parses a tag expression: empty or `*` takes everything, `a || b` takes both tags; empty parts are ignored.
    pub fn parse_tag(expression: &str) -> Result<FilterExpression, InvalidFilter> {
        let expression = expression.trim();
        if expression.len() > FILTER_BYTES_MAX {
            return Err(InvalidFilter::TooLong(expression.len()));
        }
        if expression.is_empty() || expression == "*" {
            return Ok(FilterExpression::ALL);
        }
        let mut tags: Vec<Tag> =
            expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).map(Tag::new).collect();
        if tags.is_empty() {
            return Err(InvalidFilter::NoTag(expression.to_owned()));
        }
        if tags.iter().any(|tag| tag.text == "*") {
            return Ok(FilterExpression::ALL);
        }
        let mut seen = HashSet::new();
        tags.retain(|tag| seen.insert(tag.text.clone()));
        if tags.len() > TAGS_MAX {
            return Err(InvalidFilter::TooManyTags(tags.len()));
        }
        Ok(FilterExpression::Tag(TagFilter::AnyOf(tags)))
    }

    /// A cheap test on an index entry's tag hash: false means that the message cannot match.
    pub fn may_match(&self, hash: u32) -> bool {
        match self {
            FilterExpression::Tag(TagFilter::All) => true,
            FilterExpression::Tag(TagFilter::AnyOf(tags)) => tags.iter().any(|tag| tag.hash == hash),
        }
    }

    /// The exact test on a message's tag.
    pub fn matches(&self, message_tag: Option<&str>) -> bool {
        match self {
            FilterExpression::Tag(TagFilter::All) => true,
            FilterExpression::Tag(TagFilter::AnyOf(tags)) => {
                message_tag.is_some_and(|text| tags.iter().any(|tag| tag.text == text))
            }
        }
    }
}

impl Tag {
    fn new(text: &str) -> Tag {
        Tag { text: text.to_owned(), hash: tag_hash(Some(text)) }
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The hash of a tag in index entries: 0 for no tag, never 0 for a tag. Stable: it is on disk.
pub fn tag_hash(tag: Option<&str>) -> u32 {
    match tag {
        None | Some("") => 0,
        Some(tag) => {
            let hash = fnv1a(tag.bytes());
            ((hash ^ (hash >> 32)) as u32).max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_or_nothing_takes_every_message() {
        for text in ["", " ", "*", "a || *"] {
            let filter = FilterExpression::parse_tag(text).unwrap();
            assert!(filter.matches(None) && filter.matches(Some("x")) && filter.may_match(0), "{text:?}");
        }
    }

    #[test]
    fn a_list_takes_its_tags_only() {
        let filter = FilterExpression::parse_tag("a || b||").unwrap();
        for (tag, expected) in [(Some("a"), true), (Some("b"), true), (Some("c"), false), (None, false)] {
            assert_eq!(filter.matches(tag), expected, "{tag:?}");
            if expected {
                assert!(filter.may_match(tag_hash(tag)));
            }
        }
    }

    #[test]
    fn every_one_of_many_tags_is_found_and_no_other() {
        let tags: Vec<String> = (0..TAGS_MAX).map(|n| format!("tag{n}")).collect();
        let filter = FilterExpression::parse_tag(&tags.join("||")).unwrap();
        for tag in &tags {
            assert!(filter.may_match(tag_hash(Some(tag))) && filter.matches(Some(tag)), "{tag}");
        }
        assert!(!filter.may_match(tag_hash(Some("other"))) && !filter.may_match(0));
    }

    #[test]
    fn more_tags_than_that_are_refused_and_one_that_comes_twice_is_one() {
        let tags = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join("||");
        assert!(FilterExpression::parse_tag(&tags(TAGS_MAX)).is_ok());
        let error = FilterExpression::parse_tag(&tags(TAGS_MAX + 1)).unwrap_err();
        assert_eq!(error, InvalidFilter::TooManyTags(TAGS_MAX + 1));
        assert!(FilterExpression::parse_tag(&["a"; 1000].join("||")).is_ok());
        let long = "a".repeat(FILTER_BYTES_MAX + 1);
        assert_eq!(FilterExpression::parse_tag(&long).unwrap_err(), InvalidFilter::TooLong(long.len()));
    }

    #[test]
    fn an_expression_without_a_tag_is_refused() {
        assert!(FilterExpression::parse_tag("|| ||").is_err());
    }
}
