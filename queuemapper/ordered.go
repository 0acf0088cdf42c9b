package queuemapper

import (
	"iter"
	"slices"
)

// ordered is an immutable sorted map in two levels: a spine of short sorted chunks. A change
// copies one chunk and the spine and shares the rest, which for a thousand entries is two
// small copies; a lookup is two binary searches over contiguous memory.
type ordered[K, V any] struct {
	compare func(a, b K) int
	chunks  [][]entry[K, V] // none is empty
	n       int
}

type entry[K, V any] struct {
	key K
	val V
}

// chunkMax is where a chunk is cut in two; below a quarter it is joined with its neighbour.
const chunkMax = 64

// orderedOf builds from entries sorted by key, without duplicates. It keeps the slice.
func orderedOf[K, V any](compare func(a, b K) int, sorted []entry[K, V]) ordered[K, V] {
	o := ordered[K, V]{compare: compare, n: len(sorted)}
	const fill = chunkMax / 2
	for len(sorted) > 0 {
		k := min(fill, len(sorted))
		o.chunks = append(o.chunks, sorted[:k:k])
		sorted = sorted[k:]
	}
	return o
}

// find returns the chunk and the place in it where k is or belongs.
func (o ordered[K, V]) find(k K) (chunk, at int, ok bool) {
	lo, hi := 0, len(o.chunks)
	for lo < hi { // the first chunk that starts past k
		mid := int(uint(lo+hi) >> 1)
		if o.compare(o.chunks[mid][0].key, k) > 0 {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return 0, 0, false
	}
	chunk = lo - 1
	c := o.chunks[chunk]
	lo, hi = 0, len(c)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if o.compare(c[mid].key, k) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return chunk, lo, lo < len(c) && o.compare(c[lo].key, k) == 0
}

func (o ordered[K, V]) get(k K) (v V, ok bool) {
	if c, at, ok := o.find(k); ok {
		return o.chunks[c][at].val, true
	}
	return v, false
}

// with returns the map with k set to v.
func (o ordered[K, V]) with(k K, v V) ordered[K, V] {
	e := entry[K, V]{k, v}
	if len(o.chunks) == 0 {
		o.chunks, o.n = [][]entry[K, V]{{e}}, 1
		return o
	}
	c, at, ok := o.find(k)
	old := o.chunks[c]
	o.chunks = slices.Clone(o.chunks)
	if ok {
		o.chunks[c] = slices.Clone(old)
		o.chunks[c][at] = e
		return o
	}
	o.n++
	fresh := make([]entry[K, V], 0, len(old)+1)
	fresh = append(append(append(fresh, old[:at]...), e), old[at:]...)
	if len(fresh) <= chunkMax {
		o.chunks[c] = fresh
		return o
	}
	half := len(fresh) / 2
	o.chunks[c] = fresh[:half:half]
	o.chunks = slices.Insert(o.chunks, c+1, fresh[half:])
	return o
}

// without returns the map with k removed.
func (o ordered[K, V]) without(k K) ordered[K, V] {
	c, at, ok := o.find(k)
	if !ok {
		return o
	}
	o.n--
	old := o.chunks[c]
	fresh := make([]entry[K, V], 0, len(old)-1)
	fresh = append(append(fresh, old[:at]...), old[at+1:]...)
	o.chunks = slices.Clone(o.chunks)
	o.chunks[c] = fresh
	switch {
	case len(fresh) == 0:
		o.chunks = slices.Delete(o.chunks, c, c+1)
	case c > 0 && len(fresh)+len(o.chunks[c-1]) <= chunkMax/4:
		o.chunks[c-1] = slices.Concat(o.chunks[c-1], fresh)
		o.chunks = slices.Delete(o.chunks, c, c+1)
	}
	return o
}

// all iterates in key order.
func (o ordered[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, c := range o.chunks {
			for _, e := range c {
				if !yield(e.key, e.val) {
					return
				}
			}
		}
	}
}

// from iterates the values of the keys from k on.
func (o ordered[K, V]) from(k K) iter.Seq[V] {
	return func(yield func(V) bool) {
		c, at, _ := o.find(k)
		for ; c < len(o.chunks); c, at = c+1, 0 {
			for ; at < len(o.chunks[c]); at++ {
				if !yield(o.chunks[c][at].val) {
					return
				}
			}
		}
	}
}

func (o ordered[K, V]) values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range o.all() {
			if !yield(v) {
				return
			}
		}
	}
}
