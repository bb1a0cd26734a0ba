//! Sealed keys from certstore, page after page.

use anyhow::{Context, bail};
use certseal_client::{ClientError, StoreClient};
use certseal_wire::{DnsName, SealedEntry, SealedPage, SealedQuery};
use tokio::task::JoinHandle;

/// Reads sealed keys, the next page while this one is worked on.
pub struct SealedPages {
    store: StoreClient,
    query: SealedQuery,
    next: Option<JoinHandle<Result<SealedPage, ClientError>>>,
}

impl SealedPages {
    /// What `query` asks for, from its first page on. Needs a tokio runtime.
    pub fn new(store: &StoreClient, query: SealedQuery) -> Self {
        let mut pages = Self { store: store.clone(), query, next: None };
        pages.next = Some(pages.fetch());
        pages
    }

    /// The next page; none at the end.
    ///
    /// # Errors
    /// When certstore cannot be reached or refuses, or its pages go back and would not end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<SealedEntry>>> {
        let Some(fetched) = self.next.take() else { return Ok(None) };
        let SealedPage { keys, next } = fetched.await.context("reading sealed keys was stopped")??;
        if let Some(next) = next {
            self.go_on_after(next)?;
            self.next = Some(self.fetch());
        }
        Ok(Some(keys))
    }

    fn go_on_after(&mut self, next: DnsName) -> anyhow::Result<()> {
        if self.query.after.as_ref().is_some_and(|after| *after >= next) {
            bail!("certstore's list of sealed keys goes back to {next}: its pages do not end");
        }
        self.query.after = Some(next);
        Ok(())
    }

    fn fetch(&self) -> JoinHandle<Result<SealedPage, ClientError>> {
        let (store, query) = (self.store.clone(), self.query.clone());
        tokio::spawn(async move { store.sealed(&query).await })
    }
}

impl Drop for SealedPages {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            next.abort();
        }
    }
}
