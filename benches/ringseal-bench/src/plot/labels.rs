//! Where labels go that must not overlap.

/// Moves positions apart, as little as possible and in their order, so that neighbours are at least
/// `gap` apart and all are between `low` and `high`. Where there is no room for all, the gap shrinks.
pub(crate) fn spread(positions: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let count = positions.len();
    let gap = gap.min((high - low).max(0.0) / count.saturating_sub(1).max(1) as f64);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| positions[a].total_cmp(&positions[b]));
    // Groups of labels that touch: the sum of where their first would like to be, and how many.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for &index in &order {
        groups.push((positions[index], 1));
        while let [.., (above, above_count), (below, below_count)] = groups[..] {
            let start = |sum: f64, count: usize| {
                let middle = sum / count as f64;
                middle.clamp(low, (high - gap * (count - 1) as f64).max(low))
            };
            let end = start(above, above_count) + gap * above_count as f64;
            if start(below, below_count) >= end {
                break;
            }
            let shift = gap * (above_count * below_count) as f64;
            groups.truncate(groups.len() - 2);
            groups.push((above + below - shift, above_count + below_count));
        }
    }
    let mut placed = vec![0.0; count];
    let mut next = order.into_iter();
    for (sum, size) in groups {
        let highest = (high - gap * (size - 1) as f64).max(low);
        let start = (sum / size as f64).clamp(low, highest);
        for (step, index) in next.by_ref().take(size).enumerate() {
            placed[index] = start + gap * step as f64;
        }
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_room_stay() {
        assert_eq!(spread(&[30.0, 10.0], 5.0, 0.0, 100.0), [30.0, 10.0]);
        assert!(spread(&[], 5.0, 0.0, 100.0).is_empty());
    }

    #[test]
    fn close_ones_part_about_their_middle() {
        assert_eq!(spread(&[50.0, 50.0], 10.0, 0.0, 100.0), [45.0, 55.0]);
        assert_eq!(spread(&[52.0, 50.0, 48.0], 10.0, 0.0, 100.0), [60.0, 50.0, 40.0]);
    }

    #[test]
    fn none_leaves_the_bounds() {
        assert_eq!(spread(&[99.0, 98.0], 10.0, 0.0, 100.0), [100.0, 90.0]);
        assert_eq!(spread(&[-9.0, -5.0], 10.0, 0.0, 100.0), [0.0, 10.0]);
        let many = spread(&[5.0; 11], 10.0, 0.0, 50.0);
        assert_eq!((many[0], many[10]), (0.0, 50.0));
    }

    #[test]
    fn the_gap_holds_for_many() {
        let positions: Vec<f64> = (0..12).map(|index| f64::from(index * index) / 3.0).collect();
        let placed = spread(&positions, 14.0, 0.0, 400.0);
        assert!(placed.windows(2).all(|pair| pair[1] - pair[0] >= 14.0 - 1e-9), "{placed:?}");
    }
}
