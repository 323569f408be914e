//! Callers and members of the controller introduce themselves, in the headers of every call and every answer:
//!
//! - `gantry-versions`: the versions that they speak, as `min-max`.
//! - `gantry-cluster`: their cluster, as 32 hexadecimal digits, once they know it.
//! - `gantry-must-understand`: numbers that a member must know to carry the call out. There are none yet.
//! - `gantry-refused`: the call was not carried out, because of the other headers.
//!
//! (Proxies and stores do the same in the handshake of their stream.)
//!
//! A process that does not know its cluster yet learns it from the first member that answers. A new member does not learn it
//! from members that it calls, but from the first member that calls it.

use crate::local_peer::{LocalPeer, OtherCluster};
use crate::versions::{NoCommonVersion, SPOKEN, VersionRange};
use gantry_proto::contract::ConsensusPeer;
use gantry_proto::model::ClusterId;
use http::header::{AsHeaderName, HeaderName};
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use tonic::Status;

const VERSIONS: HeaderName = HeaderName::from_static("gantry-versions");
const CLUSTER: HeaderName = HeaderName::from_static("gantry-cluster");
const MUST_UNDERSTAND: HeaderName = HeaderName::from_static("gantry-must-understand");
const REFUSED: &str = "gantry-refused";
/// Numbers in `gantry-must-understand` that this program knows.
const UNDERSTOOD: &[u32] = &[];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Introduced {
    /// Calls of proxies, stores and members to a member.
    Controller,
    /// Calls among members, for consensus.
    Consensus,
}

impl Introduced {
    pub(super) fn of(path: &str) -> Option<Introduced> {
        let service = path.strip_prefix("/gantry.controller.v1.")?;
        Some(if service.starts_with("Consensus/") { Introduced::Consensus } else { Introduced::Controller })
    }
}

/// Why a call is not carried out, or its answer not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntroductionError {
    #[error("no {0} header that this version understands: is it a gantry of the same generation?")]
    Unreadable(HeaderName),
    #[error("{}", .0.between("this process", "the other one"))]
    Version(NoCommonVersion),
    #[error("{0}")]
    Cluster(OtherCluster),
    #[error("this member does not know yet that it belongs to cluster {0}: ask again, or another member")]
    NotYet(ClusterId),
    #[error("the caller does not say which cluster it is a member of")]
    Nameless,
    #[error(
        "the call must not be carried out without understanding {0}, which this version does not: upgrade this process"
    )]
    MustUnderstand(u32),
}

/// Writes the headers of this process.
pub(super) fn introduce(cluster: Option<ClusterId>, headers: &mut HeaderMap) {
    headers.insert(VERSIONS, value(&format!("{}-{}", SPOKEN.min(), SPOKEN.max())));
    if let Some(cluster) = cluster {
        headers.insert(CLUSTER, value(&cluster.to_string()));
    }
}

/// Whether a member carries a call with these headers out.
pub(super) fn admit(
    headers: &HeaderMap,
    call: Introduced,
    local: &LocalPeer,
    member: &Arc<dyn ConsensusPeer>,
) -> Result<(), IntroductionError> {
    SPOKEN.common(versions(headers)?).map_err(IntroductionError::Version)?;
    must_understand(headers)?;
    match (cluster(headers)?, call) {
        (Some(theirs), Introduced::Consensus) => local.belongs_to(theirs).map_err(IntroductionError::Cluster),
        (Some(theirs), Introduced::Controller) => {
            // A cluster that it only heard of is not in its metadata yet: it would answer with an empty cluster.
            let ours = member.cluster().ok_or(IntroductionError::NotYet(theirs))?;
            if ours == theirs { Ok(()) } else { Err(IntroductionError::Cluster(OtherCluster { ours, theirs })) }
        }
        (None, Introduced::Consensus) if local.cluster().is_some() => Err(IntroductionError::Nameless),
        (None, _) => Ok(()),
    }
}

/// A refusal that says that nothing was carried out.
pub(super) fn refusal(error: &IntroductionError) -> Status {
    let mut status = Status::failed_precondition(error.to_string());
    let kind = match error {
        IntroductionError::Unreadable(_) => "headers",
        IntroductionError::Version(_) => "version",
        IntroductionError::Cluster(_) | IntroductionError::NotYet(_) | IntroductionError::Nameless => "cluster",
        IntroductionError::MustUnderstand(_) => "must-understand",
    };
    status.metadata_mut().insert(REFUSED, tonic::metadata::MetadataValue::from_static(kind));
    status
}

/// Whether a status says that the call was refused before anything was done.
pub(super) fn is_refusal(status: &Status) -> bool {
    status.metadata().contains_key(REFUSED)
}

/// Whether an answer with these headers is accepted. If it is, this process belongs to the cluster that they name.
pub(super) fn accept(headers: &HeaderMap, call: Introduced, local: &LocalPeer) -> Result<(), IntroductionError> {
    let failed = headers.get("grpc-status").is_some_and(|status| status.as_bytes() != b"0");
    if failed {
        // A refusal carries its reason, and need not come from a member.
        return Ok(());
    }
    SPOKEN.common(versions(headers)?).map_err(IntroductionError::Version)?;
    match (cluster(headers)?, call, local.cluster()) {
        (None, _, _) | (Some(_), Introduced::Consensus, None) => Ok(()),
        (Some(theirs), _, _) => local.belongs_to(theirs).map_err(IntroductionError::Cluster),
    }
}

fn versions(headers: &HeaderMap) -> Result<VersionRange, IntroductionError> {
    let read = || {
        let (min, max) = text(headers, VERSIONS)?.split_once('-')?;
        VersionRange::new(min.parse().ok()?, max.parse().ok()?)
    };
    read().ok_or(IntroductionError::Unreadable(VERSIONS))
}

fn cluster(headers: &HeaderMap) -> Result<Option<ClusterId>, IntroductionError> {
    if !headers.contains_key(CLUSTER) {
        return Ok(None);
    }
    let read = || {
        let digits = text(headers, CLUSTER)?;
        let number = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32)?;
        Some(ClusterId(number.to_be_bytes()))
    };
    read().map(Some).ok_or(IntroductionError::Unreadable(CLUSTER))
}

fn must_understand(headers: &HeaderMap) -> Result<(), IntroductionError> {
    let Some(list) = headers.get(MUST_UNDERSTAND) else { return Ok(()) };
    let list = list.to_str().map_err(|_| IntroductionError::Unreadable(MUST_UNDERSTAND))?;
    for number in list.split(',') {
        let number = number.trim().parse().map_err(|_| IntroductionError::Unreadable(MUST_UNDERSTAND))?;
        if !UNDERSTOOD.contains(&number) {
            return Err(IntroductionError::MustUnderstand(number));
        }
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits and dashes may stand in a header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::PeerCredentials;
    use Introduced::{Consensus, Controller};
    use bytes::Bytes;
    use gantry_proto::contract::{ConsensusCall, ConsensusError};

    struct Member(Option<ClusterId>);

    #[async_trait::async_trait]
    impl ConsensusPeer for Member {
        async fn answer(&self, _call: ConsensusCall) -> Result<Bytes, ConsensusError> {
            Ok(Bytes::new())
        }

        fn cluster(&self) -> Option<ClusterId> {
            self.0
        }
    }

    const A: ClusterId = ClusterId([0x0a; 16]);
    const B: ClusterId = ClusterId([0xb0; 16]);

    fn headers(cluster: Option<ClusterId>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        introduce(cluster, &mut headers);
        headers
    }

    /// What a member of `ours` says to a caller of `theirs`, and which cluster it takes for its own afterwards.
    fn asked(ours: Option<ClusterId>, theirs: Option<ClusterId>, call: Introduced) -> (bool, Option<ClusterId>) {
        let member: Arc<dyn ConsensusPeer> = Arc::new(Member(ours));
        let local = LocalPeer::new(PeerCredentials::None);
        local.is_member(&member);
        let admitted = admit(&headers(theirs), call, &local, &member).is_ok();
        (admitted, local.cluster())
    }

    #[test]
    fn a_member_answers_its_own_cluster_and_those_who_do_not_know_theirs_yet() {
        for call in [Controller, Consensus] {
            assert_eq!(asked(Some(A), Some(A), call), (true, Some(A)));
            assert_eq!(asked(Some(A), Some(B), call), (false, Some(A)));
            assert_eq!(asked(None, None, call), (true, None), "before the cluster is founded");
        }
        assert_eq!(asked(Some(A), None, Controller), (true, Some(A)), "it learns from the answer");
        assert_eq!(
            asked(Some(A), None, Consensus),
            (false, Some(A)),
            "a member that is nobody's yet waits to be called"
        );
        assert_eq!(asked(None, Some(A), Consensus), (true, Some(A)), "a new member belongs to whoever calls it");
        assert_eq!(asked(None, Some(A), Controller), (false, None), "it has no metadata of that cluster");
    }

    #[test]
    fn a_new_member_that_was_called_has_no_metadata_yet() {
        let member: Arc<dyn ConsensusPeer> = Arc::new(Member(None));
        let local = LocalPeer::new(PeerCredentials::None);
        local.is_member(&member);
        admit(&headers(Some(A)), Consensus, &local, &member).unwrap();
        assert!(matches!(admit(&headers(Some(A)), Controller, &local, &member), Err(IntroductionError::NotYet(A))));
        assert!(matches!(admit(&headers(Some(B)), Consensus, &local, &member), Err(IntroductionError::Cluster(_))));
    }

    #[test]
    fn a_caller_learns_its_cluster_from_the_first_answer_and_takes_no_other() {
        let local = LocalPeer::new(PeerCredentials::None);
        accept(&headers(Some(A)), Consensus, &local).unwrap();
        assert_eq!(local.cluster(), None, "members do not choose by calling");
        accept(&headers(None), Controller, &local).unwrap();
        accept(&headers(Some(A)), Controller, &local).unwrap();
        assert_eq!(local.cluster(), Some(A));
        for call in [Controller, Consensus] {
            assert!(matches!(accept(&headers(Some(B)), call, &local), Err(IntroductionError::Cluster(_))));
        }
        assert!(matches!(accept(&HeaderMap::new(), Controller, &local), Err(IntroductionError::Unreadable(_))));
    }

    #[test]
    fn headers_that_this_version_cannot_read_are_refused() {
        let member: Arc<dyn ConsensusPeer> = Arc::new(Member(Some(A)));
        let local = LocalPeer::new(PeerCredentials::None);
        let admitted = |name: &'static str, text: &'static str| {
            let mut headers = headers(Some(A));
            headers.insert(name, HeaderValue::from_static(text));
            admit(&headers, Controller, &local, &member).map_err(|error| error.to_string())
        };
        assert_eq!(admitted("gantry-versions", "1-9"), Ok(()), "a newer caller");
        let newer = admitted("gantry-versions", "2-9").unwrap_err();
        assert!(newer.contains("version 1 ") && newer.contains("2 to 9") && newer.contains("upgrade this"), "{newer}");
        for text in ["", "1", "0-1", "3-2", "-1-2", "one-two"] {
            assert!(admitted("gantry-versions", text).is_err(), "{text}");
        }
        for text in ["", "0a0a", "+a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0", "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0g"] {
            assert!(admitted("gantry-cluster", text).is_err(), "{text}");
        }
        assert_eq!(admitted("gantry-something-newer", "x"), Ok(()));
        for text in ["7", "x", "1,2"] {
            assert!(admitted("gantry-must-understand", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_that_nothing_was_carried_out() {
        let status = refusal(&IntroductionError::Nameless);
        assert!(is_refusal(&status) && !is_refusal(&Status::failed_precondition("by a handler")));
    }
}
