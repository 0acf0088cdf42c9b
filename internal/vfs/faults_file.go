package vfs

import (
	"fmt"
	"io"
	"math/rand/v2"
)

// faultyFile is a handle of Faulty.
type faultyFile struct {
	f    *Faulty
	file File
	name string
}

func (x *faultyFile) ReadAt(p []byte, off int64) (n int, err error) {
	op := Op{Kind: KindRead, Name: x.name, Offset: off, Length: len(p)}
	ft, seed := x.f.begin(op, "")
	if ft != nil && ft.rule.Effect == FlipBit {
		n, err = x.file.ReadAt(p, off)
		flipBit(p[:n], seed)
		return n, err
	}
	err = x.apply(ft, op, func() error {
		n, err = x.file.ReadAt(p, off)
		if err == io.EOF { // an answer, not a fault
			return nil
		}
		return err
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	if err != nil && err != io.EOF {
		n = 0
	}
	return n, err
}

func (x *faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	op := Op{Kind: KindWrite, Name: x.name, Offset: off, Length: len(p)}
	ft, seed := x.f.begin(op, "")
	if ft != nil && ft.rule.Effect == FlipBit {
		p = alignedCopy(p)
		flipBit(p, seed)
		ft = nil
	}
	if ft != nil && (ft.rule.Effect == Tear || ft.rule.Effect == HangTorn) {
		if err := x.tear(p, off, seed); err != nil {
			return 0, err
		}
	}
	err = x.apply(ft, op, func() error {
		n, err = x.file.WriteAt(p, off)
		return err
	})
	if err != nil {
		n = 0
	}
	return n, err
}

func (x *faultyFile) apply(ft *Fault, op Op, do func() error) error {
	if ft == nil {
		return do()
	}
	return ft.around(op, do)
}

// tear writes some sectors of p: never all when there are two or more.
func (x *faultyFile) tear(p []byte, off int64, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	sectors := (len(p) + SectorSize - 1) / SectorSize
	missing := rng.IntN(max(sectors, 1)) // one that is surely not written
	// Half of the tears are a clean prefix, as a cut in the middle of one
	// transfer leaves; the others have holes.
	prefix := rng.IntN(2) == 0
	for i := range sectors {
		if i == missing || (prefix && i > missing) || (!prefix && rng.IntN(2) == 0) {
			continue
		}
		at := i * SectorSize
		piece := p[at:min(at+SectorSize, len(p))]
		if _, err := x.file.WriteAt(piece, off+int64(at)); err != nil {
			return fmt.Errorf("tear write of %s: %w", x.name, err)
		}
	}
	return nil
}

func flipBit(p []byte, seed uint64) {
	if len(p) > 0 {
		bit := seed % uint64(len(p)*8)
		p[bit/8] ^= 1 << (bit % 8)
	}
}

func (x *faultyFile) WillNeed(off, n int64) { x.file.WillNeed(off, n) }

func (x *faultyFile) Datasync() error {
	return x.f.around(Op{Kind: KindSync, Name: x.name}, "", x.file.Datasync)
}

func (x *faultyFile) Sync() error {
	return x.f.around(Op{Kind: KindSync, Name: x.name}, "", x.file.Sync)
}

func (x *faultyFile) Truncate(size int64) error {
	return x.f.around(Op{Kind: KindTruncate, Name: x.name, Offset: size}, "",
		func() error { return x.file.Truncate(size) })
}

func (x *faultyFile) Allocate(off, n int64) error {
	return x.f.around(Op{Kind: KindAllocate, Name: x.name, Offset: off, Length: int(n)}, "",
		func() error { return x.file.Allocate(off, n) })
}

func (x *faultyFile) Size() (size int64, err error) {
	err = x.f.around(Op{Kind: KindSize, Name: x.name}, "", func() (err error) {
		size, err = x.file.Size()
		return err
	})
	return size, err
}

func (x *faultyFile) Close() error {
	return x.f.around(Op{Kind: KindClose, Name: x.name}, "", x.file.Close)
}

// FlipStoredBit turns one bit of a file at rest, durably: damage that a disk
// does by itself. bit counts from the first byte's lowest bit.
func FlipStoredBit(fs FS, name string, bit int64) error {
	f, err := fs.Open(name, OpenOptions{Write: true, Dsync: true})
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], bit/8); err != nil {
		return fmt.Errorf("flip bit %d of %s: %w", bit, name, err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b[:], bit/8); err != nil {
		return fmt.Errorf("flip bit %d of %s: %w", bit, name, err)
	}
	return nil
}
