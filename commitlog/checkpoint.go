package commitlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// A checkpoint is the queue table as it was at one position of the log, so that
// a restart replays only what follows. It is derived: when both slots are lost
// or bad the log is replayed from its start, which costs time only.
//
//	c := openCheckpoints(fsys, metaDir, log)
//	cp, ok, damage := c.load()      // the newest sound one; damage is for the operator
//	err := c.write(position, epoch, func(w io.Writer) error { … })
//
// There are two slots. write goes to the one that does not hold the newest sound
// checkpoint, in place: while it is half written the other one is there. The
// payload is opaque here.
type checkpoints struct {
	fs  vfs.FS
	dir string
	log ident.Log

	// Owned by the caller: load and write are not for concurrent use.
	serial uint64 // of the newest checkpoint seen or written
	newest int    // slot that holds it; -1: none does
}

var checkpointSlots = [2]string{"checkpoint-A", "checkpoint-B"}

// checkpointSyncEvery bounds what one sync hands to the device at once.
const checkpointSyncEvery = 4 << 20

// checkpoint is a loaded one.
type checkpoint struct {
	checkpointMark
	payload []byte
}

func openCheckpoints(fsys vfs.FS, metaDir string, log ident.Log) *checkpoints {
	return &checkpoints{fs: fsys, dir: metaDir, log: log, newest: -1}
}

// load reads both slots and returns the newest checkpoint that is sound in every
// byte and belongs to this log; false when there is none. damage joins what was
// wrong with a slot, nil when nothing was; an absent slot is not damage. It needs
// memory for two payloads at most.
func (c *checkpoints) load() (out checkpoint, ok bool, damage error) {
	c.newest = -1
	for i, name := range checkpointSlots {
		cp, err := c.read(filepath.Join(c.dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			damage = errors.Join(damage, err)
		case !ok || cp.serial > out.serial:
			out, ok, c.newest = cp, true, i
		}
		// Also of a slot that is not sound: its serial must not come again, or
		// its chunks could be taken for those of the next checkpoint.
		c.serial = max(c.serial, cp.serial)
	}
	return out, ok, damage
}

func (c *checkpoints) read(name string) (out checkpoint, err error) {
	f, err := c.fs.Open(name, vfs.OpenOptions{})
	if err != nil {
		return out, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return out, err
	}
	var head [checkpointHeader]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return out, err
	}
	if out.checkpointMark, err = decodeCheckpointHeader(head[:n], size); err != nil {
		return out, c.bad(name, 0, err)
	}
	if out.log != c.log {
		return out, c.bad(name, checkpointLogOff, fmt.Errorf("belongs to log %v", out.log))
	}
	out.payload = make([]byte, 0, out.length)
	buf := make([]byte, chunkHeader+min(checkpointChunk, out.length))
	for at, number := int64(checkpointHeader), uint64(0); at < size; number++ {
		b := buf[:min(int64(len(buf)), size-at)]
		if _, err := f.ReadAt(b, at); err != nil {
			return out, fmt.Errorf("read %s: %w", name, err)
		}
		if err := checkChunk(b, out.serial, number); err != nil {
			return out, c.bad(name, at, err)
		}
		out.payload = append(out.payload, b[chunkHeader:]...)
		at += int64(len(b))
	}
	return out, nil
}

func (c *checkpoints) bad(name string, at int64, cause error) error {
	if errors.Is(cause, ErrVersion) {
		return fmt.Errorf("read %s: %w", name, cause)
	}
	return &derivedError{file: name, at: at, reason: cause.Error()}
}

// write makes a checkpoint durable: payload writes it, in pieces of any size,
// without being held in memory. After an error the checkpoint before still
// holds, and the next write may be tried. load comes first.
func (c *checkpoints) write(position ident.Position, epoch ident.LogEpoch, payload func(io.Writer) error) error {
	slot := 0
	if c.newest == 0 {
		slot = 1
	}
	c.serial++ // also when it fails: what it left must never fit another one
	name := filepath.Join(c.dir, checkpointSlots[slot])
	f, err := c.fs.Open(name, vfs.OpenOptions{Create: true, Truncate: true})
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	w := checkpointWriter{f: f, at: checkpointHeader, mark: checkpointMark{
		log: c.log, serial: c.serial, position: position, epoch: epoch}}
	w.buf = make([]byte, chunkHeader, chunkHeader+checkpointChunk)
	err = payload(&w)
	if err == nil {
		err = w.finish()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = c.fs.SyncDir(c.dir)
	}
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	c.newest = slot
	return nil
}

// checkpointWriter cuts a payload into chunks.
type checkpointWriter struct {
	f      vfs.File
	buf    []byte // header room and bytes of the open chunk
	at     int64  // where it goes
	synced int64
	number uint64
	mark   checkpointMark
	err    error // sticky
}

// Write implements io.Writer.
func (w *checkpointWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) && w.err == nil {
		if len(w.buf) == cap(w.buf) {
			w.err = w.flush()
			continue
		}
		n := copy(w.buf[len(w.buf):cap(w.buf)], p[done:])
		w.buf = w.buf[:len(w.buf)+n]
		w.mark.length += int64(n)
		done += n
	}
	return done, w.err
}

func (w *checkpointWriter) flush() error {
	if len(w.buf) == chunkHeader {
		return nil
	}
	sealChunk(w.buf, w.mark.serial, w.number)
	if _, err := w.f.WriteAt(w.buf, w.at); err != nil {
		return err
	}
	w.number++
	w.at += int64(len(w.buf))
	w.buf = w.buf[:chunkHeader]
	if w.at-w.synced >= checkpointSyncEvery {
		w.synced = w.at
		return w.f.Datasync()
	}
	return nil
}

// finish writes what is left and then the header, which makes the slot valid.
func (w *checkpointWriter) finish() error {
	if w.err == nil {
		w.err = w.flush()
	}
	if w.err == nil {
		w.err = w.f.Datasync() // a sound header must never meet chunks that are not there
	}
	if w.err != nil {
		return w.err
	}
	var head [checkpointHeader]byte
	encodeCheckpointHeader(head[:], &w.mark)
	if _, err := w.f.WriteAt(head[:], 0); err != nil {
		return err
	}
	return w.f.Sync()
}
