package commitlog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"github.com/skeinmq/skein/internal/ident"
)

// damage is what is known of a log that cannot be read: ranges that recovery found, or that a read met. It is told
// (log, metrics, Stats.Unavailable) until the file is reclaimed, also by later processes, which need not read that range again.
// The file that remembers it is derived: without it each range is found again when it is read.
type damage struct {
	l    *Log
	name string

	mu     sync.Mutex
	ranges []CorruptError // in order of position, disjoint
	dirty  bool           // differs from the file; the sealer writes it
}

// maxDamage bounds how many ranges are remembered. A disk with more is to be replaced, not listed.
const maxDamage = 1024

// maxDamageBytes bounds the file.
const maxDamageBytes = 1 << 20

const damageName = "damage.json"

// damageFile is the file, docs/format/damage.md.
type damageFile struct {
	Log    string          `json:"log"`
	Ranges []damagedOnDisk `json:"ranges"`
}

type damagedOnDisk struct {
	File   string         `json:"file"` // in the log's directory
	From   ident.Position `json:"from"`
	To     ident.Position `json:"to"`
	Reason string         `json:"reason"`
}

// note remembers a range, unless all of it is known, and tells it once.
func (d *damage) note(e CorruptError) {
	if !d.add(e) {
		return
	}
	d.l.log.Error("records on the disk are damaged", "component", "commitlog", "log", d.l.id, "file", e.File, "from", int64(e.From), "to", int64(e.To), "reason", e.Reason)
	d.l.sealer.wake.poke()
}

// add merges a range into those that are known and reports whether it says anything new.
func (d *damage) add(e CorruptError) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.ranges {
		if r.From <= e.From && e.To <= r.To {
			return false
		}
	}
	if len(d.ranges) >= maxDamage {
		return false
	}
	merged := d.ranges[:0]
	for _, r := range d.ranges {
		if r.File == e.File && r.From <= e.To && e.From <= r.To {
			e.From, e.To = min(r.From, e.From), max(r.To, e.To)
			continue
		}
		merged = append(merged, r)
	}
	d.ranges = append(merged, e)
	slices.SortFunc(d.ranges, func(a, b CorruptError) int { return cmp.Compare(a.From, b.From) })
	d.dirty = true
	return true
}

// forget drops what is known of a file that goes.
func (d *damage) forget(f *logFile) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.ranges)
	d.ranges = slices.DeleteFunc(d.ranges, func(r CorruptError) bool { return f.spans(&r) })
	d.dirty = d.dirty || len(d.ranges) < n
}

func (d *damage) all() []CorruptError {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ranges)
}

// in reports whether damage is known of a file.
func (d *damage) in(f *logFile) bool {
	return slices.ContainsFunc(d.all(), func(r CorruptError) bool { return f.spans(&r) })
}

// bytes is the sum of the ranges.
func (d *damage) bytes() (sum int64) {
	for _, r := range d.all() {
		sum += int64(r.To - r.From)
	}
	return sum
}

// before returns the last range that begins before a position, which is in a file (nil: none): of a sorted one the last in it,
// or else before what it stands for.
func (d *damage) before(at ident.Position, f *logFile) (CorruptError, bool) {
	all := d.all()
	if f != nil && f.sorted != nil && !slices.ContainsFunc(all, func(r CorruptError) bool { return f.first <= r.From && r.From < at }) {
		at = f.sorted.from
	}
	i, _ := slices.BinarySearchFunc(all, at, func(r CorruptError, at ident.Position) int { return cmp.Compare(r.From, at) })
	if i == 0 {
		return CorruptError{}, false
	}
	return all[i-1], true
}

// open takes over what earlier processes knew of files that are still there, and what this one's recovery found.
func (d *damage) open(found []CorruptError) {
	for _, e := range found {
		d.note(e)
	}
	known, err := d.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.l.log.Warn("list of damaged ranges is not usable", "component", "commitlog", "log", d.l.id, "error", err)
	}
	for _, r := range known {
		if slices.ContainsFunc(d.l.files.all(), func(f *logFile) bool { return f.spans(&r) }) {
			d.note(r)
		}
	}
}

func (d *damage) read() ([]CorruptError, error) {
	b, err := readSmall(d.l.fs, d.name, maxDamageBytes)
	if err != nil {
		return nil, err
	}
	var in damageFile
	if err := json.Unmarshal(b, &in); err != nil || in.Log != d.l.id.String() {
		return nil, errors.Join(err, fmt.Errorf("%s: of log %q", d.name, in.Log))
	}
	out := make([]CorruptError, 0, min(len(in.Ranges), maxDamage))
	for _, r := range in.Ranges[:min(len(in.Ranges), maxDamage)] {
		out = append(out, CorruptError{File: filepath.Join(d.l.logDir, filepath.Base(r.File)), From: r.From, To: r.To, Reason: r.Reason})
	}
	return out, nil
}

// tell writes the file when it differs from what is known. Only the sealer calls it.
func (d *damage) tell() {
	d.mu.Lock()
	ranges, dirty := slices.Clone(d.ranges), d.dirty
	d.dirty = false
	d.mu.Unlock()
	if !dirty {
		return
	}
	if err := d.write(ranges); err != nil {
		d.l.log.Warn("list of damaged ranges not written", "component", "commitlog", "log", d.l.id, "error", err)
		d.mu.Lock()
		d.dirty = true
		d.mu.Unlock()
	}
}

func (d *damage) write(ranges []CorruptError) error {
	out := damageFile{Log: d.l.id.String(), Ranges: []damagedOnDisk{}}
	for _, r := range ranges {
		out.Ranges = append(out.Ranges, damagedOnDisk{File: filepath.Base(r.File), From: r.From, To: r.To, Reason: r.Reason})
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return err
	}
	return writeSmall(d.l.fs, d.name, append(b, '\n'))
}
