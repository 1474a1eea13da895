//! Beginning a pull while the registries are still asked who has the image.
//!
//! Where the last image of a repository came from, the next one most likely comes from too. Its pull begins
//! together with the questions, so that asking costs no time. What the questions say decides, as always: unless
//! that place is the one chosen, its pull is called off and nothing of it is used.

use policy::Verdict;
use resolver::Resolution;

/// Whether the pull of candidate `at` may begin now. `known` is what is remembered of this very image: a place that is
/// known to lack it, or one below a place that is known to have it, is not begun with.
pub(super) fn may_begin(at: usize, known: &Resolution) -> bool {
    let verdicts = known.verdicts();
    let may_have_it = matches!(verdicts.get(at), Some(None | Some(Verdict::Found)));
    let is_found = |verdict: &Option<Verdict>| *verdict == Some(Verdict::Found);
    may_have_it && !verdicts.iter().take(at).any(is_found)
}
