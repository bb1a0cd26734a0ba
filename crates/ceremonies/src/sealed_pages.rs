//! Sealed keys from certstore, page after page.

use certseal_client::{ClientError, StoreClient};
use certseal_wire::{DnsName, SealedEntry, SealedPage, SealedQuery};
use tokio::task::{JoinError, JoinHandle};

/// Why sealed keys cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PagesError {
    /// certstore cannot be reached, or refuses.
    #[error(transparent)]
    Client(Box<ClientError>),
    /// Reading was stopped.
    #[error("reading sealed keys was stopped")]
    Stopped(#[source] JoinError),
    /// The pages would not end.
    #[error("certstore's list of sealed keys goes back to {0}: its pages do not end")]
    GoesBack(DnsName),
}

/// Reads sealed keys, the next page while this one is worked on.
pub(crate) struct SealedPages {
    store: StoreClient,
    query: SealedQuery,
    next: Option<JoinHandle<Result<SealedPage, ClientError>>>,
}

impl SealedPages {
    /// The keys that `query` asks for, from its first page on. Needs a tokio runtime.
    pub(crate) fn new(store: &StoreClient, query: SealedQuery) -> Self {
        let mut pages = Self { store: store.clone(), query, next: None };
        pages.next = Some(pages.fetch());
        pages
    }

    /// The next page; none at the end.
    ///
    /// # Errors
    /// When certstore cannot be reached or refuses, or its pages go back and would not end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<SealedEntry>>, PagesError> {
        let Some(fetched) = self.next.take() else { return Ok(None) };
        let SealedPage { keys, next } =
            fetched.await.map_err(PagesError::Stopped)?.map_err(|error| PagesError::Client(Box::new(error)))?;
        if let Some(next) = next {
            self.go_on_after(next)?;
            self.next = Some(self.fetch());
        }
        Ok(Some(keys))
    }

    fn go_on_after(&mut self, next: DnsName) -> Result<(), PagesError> {
        if self.query.after.as_ref().is_some_and(|after| *after >= next) {
            return Err(PagesError::GoesBack(next));
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
