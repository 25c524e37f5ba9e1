//! Samples and what is said of them.

/// Points of a drawn distribution: more cannot be seen.
const DRAWN: usize = 400;

/// Samples of one quantity, sorted once they are all there.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    sorted: Vec<f32>,
}

impl Samples {
    /// These samples. Values that are no numbers are left out.
    pub fn new(mut samples: Vec<f32>) -> Samples {
        samples.retain(|sample| !sample.is_nan());
        samples.sort_unstable_by(f32::total_cmp);
        Samples { sorted: samples }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Them, from the smallest on.
    pub fn iter(&self) -> impl Iterator<Item = f32> + '_ {
        self.sorted.iter().copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Their mean; `None` if there are none.
    pub fn mean(&self) -> Option<f64> {
        let sum: f64 = self.sorted.iter().map(|&sample| f64::from(sample)).sum();
        (!self.is_empty()).then(|| sum / self.len() as f64)
    }

    /// The smallest sample that the share `q` of them, 0 to 1, does not exceed; `None` if there are none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let place = (self.len() as f64 * q).ceil() as usize;
        self.sorted.get(place.clamp(1, self.len().max(1)) - 1).map(|&sample| f64::from(sample))
    }

    /// The median.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The largest.
    pub fn max(&self) -> Option<f64> {
        self.sorted.last().map(|&sample| f64::from(sample))
    }

    /// Their cumulative distribution: (value, share of the samples up to it), as many points as can be seen.
    pub fn cumulative(&self) -> Vec<(f64, f64)> {
        let n = self.len();
        let drawn = DRAWN.min(n);
        let point = |i: usize| {
            let place = (i + 1) * n / drawn - 1;
            (f64::from(self.sorted[place]), (place + 1) as f64 / n as f64)
        };
        let first = self.sorted.first().map(|&least| (f64::from(least), 0.0));
        first.into_iter().chain((0..drawn).map(point)).collect()
    }
}

/// How often each small whole number came: index, count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(pub Vec<u64>);

impl Histogram {
    /// One more.
    pub fn add(&mut self, value: usize) {
        if value >= self.0.len() {
            self.0.resize(value + 1, 0);
        }
        self.0[value] += 1;
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The mean; `None` if there is none.
    pub fn mean(&self) -> Option<f64> {
        let sum: u64 = self.0.iter().zip(0..).map(|(count, value)| count * value).sum();
        let count = self.count();
        (count > 0).then(|| sum as f64 / count as f64)
    }

    /// The largest that came.
    pub fn max(&self) -> usize {
        self.0.iter().rposition(|&count| count > 0).unwrap_or(0)
    }

    /// The share of each, from 0 on.
    pub fn shares(&self) -> Vec<f64> {
        let count = self.count().max(1) as f64;
        self.0.iter().map(|&one| one as f64 / count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples = Samples::new(vec![3.0, 1.0, f32::NAN, 2.0, 10.0]);
        assert_eq!((samples.len(), samples.mean(), samples.max()), (4, Some(4.0), Some(10.0)));
        assert_eq!(
            (samples.median(), samples.quantile(0.99), samples.quantile(0.0)),
            (Some(2.0), Some(10.0), Some(1.0))
        );
        assert_eq!(samples.cumulative(), [(1.0, 0.0), (1.0, 0.25), (2.0, 0.5), (3.0, 0.75), (10.0, 1.0)]);
        let none = Samples::default();
        assert_eq!((none.mean(), none.median(), none.cumulative().len()), (None, None, 0));
        assert_eq!(
            Samples::new((0..=65_535u16).map(f32::from).collect()).cumulative().last(),
            Some(&(65_535.0, 1.0))
        );
    }

    #[test]
    fn histograms_count() {
        let mut hops = Histogram::default();
        [3, 1, 3, 1].into_iter().for_each(|value| hops.add(value));
        assert_eq!((hops.count(), hops.mean(), hops.max()), (4, Some(2.0), 3));
        assert_eq!(hops.shares(), [0.0, 0.5, 0.0, 0.5]);
        assert_eq!((Histogram::default().mean(), Histogram::default().max()), (None, 0));
    }
}
