//! The tricks, by category. A text that begins with `!` must be refused wherever there is a guard; of the others only
//! the outcome counts.

mod context;
mod disturbing;
mod identity;
mod leftovers;
mod limits;
mod looking;
mod rows;
mod running;
mod texts;

/// Every trick.
pub fn all() -> impl Iterator<Item = &'static str> {
    let categories = [
        context::TRICKS,
        identity::TRICKS,
        running::TRICKS,
        texts::TRICKS,
        looking::TRICKS,
        rows::TRICKS,
        limits::TRICKS,
        leftovers::TRICKS,
        disturbing::TRICKS,
    ];
    categories.into_iter().flatten().copied()
}
