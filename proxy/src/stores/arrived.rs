//! Telling stores which deliveries have reached their clients.

use super::StoreGroups;
use gantry_proto::contract::{ArrivedDeliveries, RenewRequest, StoreError};
use gantry_proto::model::StoreGroupId;
use std::time::Duration;

/// Clients' deliveries that one call names. (One that was told more would be busy for long.)
const CLIENTS_AT_ONCE: usize = 256;

impl StoreGroups {
    /// From now on the leases of these deliveries, which the store group made, are extended with their clients'.
    pub(crate) async fn note_arrived(
        &self,
        store_group: StoreGroupId,
        arrived: &[ArrivedDeliveries],
        lease: Duration,
        patience: Duration,
    ) -> Result<(), StoreError> {
        let noted = async {
            for arrived in arrived.chunks(CLIENTS_AT_ONCE) {
                let store = self.leader_by_id(store_group)?;
                store.renew(RenewRequest { owners: Vec::new(), invisible: lease, arrived: arrived.to_vec() }).await?;
            }
            Ok(())
        };
        let silent = || Err(StoreError::Unreachable(format!("no answer within {patience:?}")));
        tokio::time::timeout(patience, noted).await.unwrap_or_else(|_| silent())
    }
}
