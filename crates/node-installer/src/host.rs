//! How a node is changed.

/// The node that this installer runs on. Both calls look at the node alone, never at the cluster.
pub trait Host {
    /// Whether the node has what the task wants, so that there is nothing to do. Changes nothing.
    ///
    /// # Errors
    /// It can't be found out; why, for people.
    fn is_done(&self) -> impl Future<Output = Result<bool, String>>;

    /// Does what the task wants. Running it again after it was killed anywhere finishes what was begun. When it
    /// fails, the node is as it was before, or its error says what is left.
    ///
    /// # Errors
    /// Why the node could not be changed, for people, without secrets.
    fn change(&self) -> impl Future<Output = Result<(), String>>;
}
