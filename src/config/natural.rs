//! The order in which people number things: `org_2` before `org_10`.

use std::cmp::Ordering;

/// Compares two names, runs of digits by their number and everything else byte by byte.
///
/// A total order: names that differ only in leading zeros (`a1`, `a01`) are ordered as plain text.
pub fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left.as_bytes(), right.as_bytes());
    loop {
        let (left_run, left_after) = split_run(left_rest);
        let (right_run, right_after) = split_run(right_rest);
        let order = compare_runs(left_run, right_run);
        if order != Ordering::Equal {
            return order;
        }
        if left_run.is_empty() || right_run.is_empty() {
            return left.cmp(right);
        }
        (left_rest, right_rest) = (left_after, right_after);
    }
}

/// The first run of digits, or else the first byte, and what follows.
fn split_run(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(digits.max(1).min(text.len()))
}

fn compare_runs(left: &[u8], right: &[u8]) -> Ordering {
    let number = |run: &[u8]| run.first().is_some_and(u8::is_ascii_digit);
    if number(left) && number(right) {
        let (left, right) = (without_zeros(left), without_zeros(right));
        left.len().cmp(&right.len()).then_with(|| left.cmp(right))
    } else {
        left.cmp(right)
    }
}

fn without_zeros(run: &[u8]) -> &[u8] {
    let zeros = run.iter().take_while(|byte| **byte == b'0').count();
    run.split_at(zeros).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let ordered = ["", "org", "org_1", "org_2", "org_10", "org_10a", "org_010b", "org_99", "org_100", "z"];
        for pair in ordered.windows(2) {
            assert_eq!(natural_order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(natural_order(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(natural_order("org_1", "org_1"), Ordering::Equal);
        assert_eq!(natural_order("org_01", "org_1"), Ordering::Less);
        let huge = "9".repeat(60);
        assert_eq!(natural_order(&format!("a{huge}"), &format!("a1{huge}")), Ordering::Less);
    }

    proptest! {
        #[test]
        fn the_order_is_total(names in prop::collection::vec("[ab_]{0,2}[0-9]{0,3}[ab_]{0,1}[0-9]{0,2}", 3)) {
            let (a, b, c) = (&names[0], &names[1], &names[2]);
            prop_assert_eq!(natural_order(a, b), natural_order(b, a).reverse());
            prop_assert_eq!(natural_order(a, b) == Ordering::Equal, a == b);
            if natural_order(a, b).is_le() && natural_order(b, c).is_le() {
                prop_assert!(natural_order(a, c).is_le(), "{} {} {}", a, b, c);
            }
        }
    }
}
