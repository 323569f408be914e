//! RPCs of later releases. The status of the reply says so; a gRPC error would look like a broken connection.

use super::Messaging;
use super::call::{RequestContext, UnaryRpc};
use crate::metrics::Rpc;
use crate::translate::Refusal;
use gantry_proto::wire::v2;

macro_rules! unimplemented {
    ($($rpc:ident($request:ident) -> $reply:ident: $what:literal,)*) => {$(
        pub(super) struct $rpc;

        impl UnaryRpc for $rpc {
            const RPC: Rpc = Rpc::$rpc;
            type Request = v2::$request;
            type Reply = v2::$reply;

            async fn answer(_: &Messaging, _: &RequestContext<'_>, _: v2::$request) -> Result<v2::$reply, Refusal> {
                Err(Refusal::not_implemented($what))
            }
        }
    )*};
}

unimplemented! {
    EndTransaction(EndTransactionRequest) -> EndTransactionResponse: "transactions",
    RecallMessage(RecallMessageRequest) -> RecallMessageResponse: "recalling messages",
    PullMessage(PullMessageRequest) -> PullMessageResponse: "pulling messages",
    UpdateOffset(UpdateOffsetRequest) -> UpdateOffsetResponse: "consumer offsets set by clients",
    GetOffset(GetOffsetRequest) -> GetOffsetResponse: "consumer offsets asked for by clients",
    QueryOffset(QueryOffsetRequest) -> QueryOffsetResponse: "queue offsets asked for by clients",
    SyncLiteSubscription(SyncLiteSubscriptionRequest) -> SyncLiteSubscriptionResponse: "lite topics",
}
