package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

func sortConfig(fs vfs.FS) Config {
	cfg := testConfig(fs, "data")
	cfg.SortEach, cfg.SortRate = time.Hour, 1<<40 // sortAll does it
	return cfg
}

// sortAll rewrites everything that is worth it and returns how often it did.
func (r *running) sortAll() (n int) {
	r.t.Helper()
	r.awaitSealed()
	s := scenario{l: r.Log}
	await(r.t, "what is not live to go", func() bool { r.sealer.wake.poke(); return s.settled() })
	for ; ; n++ {
		switch more, err := r.sorter.once(context.Background()); {
		case err != nil:
			r.t.Fatal(err)
		case !more:
			return n
		}
	}
}

// sortedFiles are the sorted files among a log's.
func (r *running) sortedFiles() (out []*logFile) {
	for _, f := range r.files.all() {
		if f.sorted != nil {
			out = append(out, f)
		}
	}
	return out
}

// thinned makes a log of three files and more, of which only partition 1's batches are live, a fourteenth of each.
func thinned(t *testing.T, cfg Config) (*running, *expected) {
	t.Helper()
	r, want := start(t, cfg), newExpected()
	r.begin()
	for i := range 350 {
		p := int32(2)
		if i%14 == 0 {
			p = 1
		}
		want.append(t, r, p, testBatch(2, byte(i), 9000))
	}
	q := r.queue(1, 2)
	want.batches[2] = nil
	if err := q.SetLogStart(context.Background(), q.HighWatermark()); err != nil {
		t.Fatal(err)
	}
	return r, want
}

// TestSortedFile: files with little that is live in them become one, in order of queue, and the disk comes back; what is read is the
// same before, after, and after a restart, by offset and by time.
func TestSortedFile(t *testing.T) {
	cfg := sortConfig(vfs.NewMem())
	r, want := thinned(t, cfg)
	before := r.Stats()
	if n := r.sortAll(); n != 1 {
		t.Fatalf("rewritten %d times, want 1", n)
	}
	check := func() {
		t.Helper()
		want.check(t, r)
		files := r.sortedFiles()
		if len(files) != 1 {
			t.Fatalf("%d sorted files", len(files))
		}
		var next ident.Position
		q := r.queue(1, 1)
		for _, s := range q.sealedSegments() {
			if s.file != files[0].no {
				continue
			}
			for e, err := range files[0].index.Load().entries(new(s.row(q)), 0) {
				if err != nil || next != 0 && e.position != next {
					t.Fatalf("batch at %d does not lie behind the one before, which ends at %d: %v", e.position, next, err)
				}
				next = e.position + frameHeaderSize + ident.Position(e.size)
			}
		}
		if size := files[0].onDisk(); next-files[0].first > ident.Position(size) || size > int64(next-files[0].first)+vfs.PageSize {
			t.Errorf("the last batch ends at %d of %d bytes", next-files[0].first, size)
		}
		if s, ok, err := q.FindTime(context.Background(), 0, 0); err != nil || !ok || s.Offset != 0 {
			t.Errorf("first batch by time: %+v, %v, %v", s, ok, err)
		}
	}
	await(t, "the disk back", func() bool { r.sealer.wake.poke(); return r.Stats().DiskBytes <= before.DiskBytes-2*cfg.FileSize })
	check()
	for range 2 {
		r.stop()
		v, err := Verify(context.Background(), cfg.FS, "data", nil)
		if err != nil || len(v.Problems) > 0 || v.Batches < len(want.batches[1]) {
			t.Fatalf("verify: %+v, %v", v, err)
		}
		in, err := Inspect(context.Background(), cfg.FS, "data", nil)
		if err != nil || inspected(in, 1).Batches != len(want.batches[1]) {
			t.Fatalf("inspect: %+v, %v", in, err)
		}
		r = start(t, cfg)
		r.begin()
		check()
		want.append(t, r, 1, testBatch(2, 1, 100))
	}
	r.stop()
}

func inspected(in *Inspection, p int32) (out InspectedQueue) {
	for _, q := range in.Queues {
		if q.Partition.Index == p {
			out = q
		}
	}
	return out
}

// TestSortedByItself: the sorter needs nobody to tell it.
func TestSortedByItself(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	cfg.SortEach = time.Millisecond
	r, want := thinned(t, cfg)
	defer r.stop()
	await(t, "sorted files only", func() bool { n := len(r.sortedFiles()); return n > 0 && n == len(r.files.all())-1 })
	want.check(t, r)
}

// TestSortAll: every sealed file with more than one queue is rewritten, once.
func TestSortAll(t *testing.T) {
	cfg, want := sortConfig(vfs.NewMem()), newExpected()
	cfg.SortAll = true
	r := start(t, cfg)
	defer r.stop()
	r.begin()
	for i := range 350 {
		want.append(t, r, int32(i%5), testBatch(2, byte(i), 9000))
	}
	r.awaitSealed()
	full := len(r.files.all()) - 1
	if n := r.sortAll(); n != full {
		t.Errorf("rewritten %d times, %d files are full", n, full)
	}
	want.check(t, r)
	await(t, "the others gone", func() bool { r.sealer.wake.poke(); return len(r.sortedFiles()) == len(r.files.all())-1 })
	want.check(t, r)
}

// TestSortSmallFiles: what restarts leave is put together, again and again, and no file twice for nothing.
func TestSortSmallFiles(t *testing.T) {
	cfg, want := sortConfig(vfs.NewMem()), newExpected()
	sorted := 0
	for round := range 40 {
		r := start(t, cfg)
		r.begin()
		for p := range int32(3) {
			want.append(t, r, p, testBatch(2, byte(round), 500))
		}
		sorted += r.sortAll()
		want.check(t, r)
		await(t, "few files", func() bool { r.sealer.wake.poke(); return len(r.files.all()) < 2*sortSmall })
		r.stop()
	}
	if sorted < 3 || sorted > 6 {
		t.Errorf("rewritten %d times in 40 starts", sorted)
	}
}

// TestReadersMoveAlong reads all the time while files are rewritten and reclaimed under the readers: every answer is right, none refused.
func TestReadersMoveAlong(t *testing.T) {
	cfg := sortConfig(vfs.NewMem())
	r, want := thinned(t, cfg)
	defer r.stop()
	r.awaitSealed()
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			q := r.queue(1, 1)
			var rec Records
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := i % len(want.batches[1])
				rec.Release()
				err := q.Read(context.Background(), ReadOptions{From: ident.Offset(2 * k), MaxBytes: 40000, AtLeastOne: true}, &rec)
				if err != nil || len(rec.Slices) == 0 || !bytes.Equal(rec.Slices[0], want.batches[1][k]) {
					t.Errorf("batch %d: %d slices, or other bytes, %v", k, len(rec.Slices), err)
					return
				}
				if s, ok, err := q.FindTime(context.Background(), ident.Offset(2*k), 0); err != nil || !ok || s.Offset != ident.Offset(2*k) {
					t.Errorf("batch %d by time: %+v, %v, %v", k, s, ok, err)
					return
				}
			}
		})
	}
	for round := range 12 {
		if n := r.sortAll(); n == 0 && round == 0 {
			t.Error("nothing was rewritten")
		}
		for i := range 150 { // the next files get thin
			p := int32(2)
			if i%7 == 0 {
				p = 1
			}
			q := r.queue(1, p)
			if res := r.append(batchOf(q, testBatch(2, byte(i), 9000)))[0]; res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		q := r.queue(1, 2)
		if err := q.SetLogStart(context.Background(), q.HighWatermark()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
}

// TestSortedDamage: a batch that is damaged in the file that is to be rewritten stays there, known as damaged; and of a sorted file only what is
// damaged is refused, whatever else is damaged with it.
func TestSortedDamage(t *testing.T) {
	mem := vfs.NewMem()
	cfg := sortConfig(mem)
	r, want := thinned(t, cfg)
	if n := r.sortAll(); n != 1 {
		t.Fatalf("rewritten %d times", n)
	}
	await(t, "files reclaimed", func() bool { r.sealer.wake.poke(); return len(r.files.all()) < 4 })
	name := r.sortedFiles()[0].name
	r.stop()
	whole := fileBytes(t, mem, name)
	const victim = 3
	at := int64(bytes.Index(whole, want.batches[1][victim]))
	for _, how := range []string{"", "index flipped", "index absent", "header flipped", "frame header", "frame header, index absent"} {
		t.Run(how, func(t *testing.T) {
			disk := mem.Crash(1)
			cfg := sortConfig(disk)
			refusing := []int{victim}
			if strings.HasPrefix(how, "frame header") {
				flip(t, disk, name, 8*(at-frameHeaderSize+20))
			} else {
				flip(t, disk, name, 8*(at+500))
			}
			switch {
			case how == "index flipped":
				flip(t, disk, name+indexSuffix, 8*(indexPage+20))
			case how == "header flipped":
				flip(t, disk, name, 8*30)
			case strings.HasSuffix(how, "index absent"):
				if err := disk.Remove(name + indexSuffix); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				r := start(t, cfg)
				r.begin()
				if got := readEach(t, r, 1, want); fmt.Sprint(got) != fmt.Sprint(refusing) {
					t.Errorf("batches %v are refused, want %v", got, refusing)
				}
				if known := r.Stats().Unavailable; len(known) != 1 || known[0].File != name {
					t.Errorf("known as damaged: %+v", known)
				}
				r.sortAll()
				r.stop()
			}
			v, err := Verify(context.Background(), disk, "data", nil)
			if err != nil || len(v.Problems) == 0 {
				t.Errorf("verify: %+v, %v", v, err)
			}
		})
	}
}

// TestDamagedIsNotSorted: what cannot be proven is copied nowhere.
func TestDamagedIsNotSorted(t *testing.T) {
	mem := vfs.NewMem()
	r, want := thinned(t, sortConfig(mem))
	r.awaitSealed()
	r.stop()
	const victim = 3
	flip(t, mem, "data/log/"+logFileName(0), 8*(int64(bytes.Index(fileBytes(t, mem, "data/log/"+logFileName(0)), want.batches[1][victim]))+500))
	r = start(t, sortConfig(mem))
	defer r.stop()
	r.begin()
	if n := r.sortAll(); n < 2 {
		t.Errorf("rewritten %d times: the file with damage, in vain, and then the others", n)
	}
	if got := readEach(t, r, 1, want); len(got) != 1 || got[0] != victim {
		t.Errorf("batches %v are refused, want %d", got, victim)
	}
	if known := r.Stats().Unavailable; len(known) != 1 || filepath.Base(known[0].File) != logFileName(0) {
		t.Errorf("known as damaged: %+v", known)
	}
}

// TestSortedIsReadBack: what did not reach the disk as it was meant to takes nobody's place.
func TestSortedIsReadBack(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		faulty := vfs.NewFaulty(vfs.NewMem())
		cfg := sortConfig(faulty)
		r, want := thinned(t, cfg)
		r.awaitSealed()
		fault := faulty.Inject(vfs.Rule{Kinds: vfs.KindWrite, Pattern: "*" + sortedSuffix + sortTempSuffix, Effect: vfs.FlipBit, Seed: seed})
		await(t, "what is not live to go", func() bool { r.sealer.wake.poke(); return (&scenario{l: r.Log}).settled() })
		if _, err := r.sorter.once(context.Background()); !errors.Is(err, errBad) || len(fault.Fired()) == 0 {
			t.Errorf("seed %d: a flipped bit in %v goes unseen: %v", seed, fault.Fired(), err)
		}
		want.check(t, r)
		if names := strings.Join(diskFiles(t, faulty), " "); strings.Contains(names, sortedSuffix) {
			t.Errorf("left: %s", names)
		}
		if n := r.sortAll(); n != 1 {
			t.Errorf("rewritten %d times", n)
		}
		want.check(t, r)
		r.stop()
	}
}

// TestSortedLeftovers: what a crash leaves of a rewriting is removed, whichever of the files it leaves.
func TestSortedLeftovers(t *testing.T) {
	mem := vfs.NewMem()
	cfg := sortConfig(mem)
	r, want := thinned(t, cfg)
	r.awaitSealed()
	logs := mem.Crash(1) // before
	if n := r.sortAll(); n != 1 {
		t.Fatalf("rewritten %d times", n)
	}
	f := r.sortedFiles()[0]
	sorted, index := fileBytes(t, mem, f.name), fileBytes(t, mem, f.name+indexSuffix)
	r.stop()
	older := filepath.Join("data/log", sortedName(span{f.sorted.from, f.sorted.from + ident.Position(cfg.FileSize)}, 0))
	for name, files := range map[string]map[string][]byte{
		"index only":        {f.name + indexSuffix: index},
		"both being made":   {f.name + sortTempSuffix: sorted[:8192], f.name + indexSuffix + indexTempSuffix: index[:100]},
		"with the log":      {f.name: sorted, f.name + indexSuffix: index},
		"index not there":   {f.name: sorted},
		"with an older one": {f.name: sorted, f.name + indexSuffix: index, older: sorted, older + indexSuffix: index},
	} {
		t.Run(name, func(t *testing.T) {
			disk := logs.Crash(1)
			for n, b := range files {
				putFile(t, disk, n, b)
			}
			cfg := sortConfig(disk)
			for range 2 {
				r := start(t, cfg)
				r.begin()
				want.check(t, r)
				q := r.queue(1, 1)
				if size := q.Size(); size != r.queue(1, 1).Size() || size > int64(len(want.batches[1])*9100) {
					t.Errorf("%d bytes of %d batches", size, len(want.batches[1]))
				}
				r.sortAll()
				await(t, "the log files gone", func() bool { r.sealer.wake.poke(); return r.files.all()[0].first > 0 })
				r.stop()
			}
			names := strings.Join(diskFiles(t, disk), " ")
			if strings.Contains(names, ".tmp") || strings.Contains(names, older) || strings.Contains(names, "/"+logFileName(0)) {
				t.Errorf("left: %s", names)
			}
		})
	}
}

func putFile(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Open(name, vfs.OpenOptions{Create: true})
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close(), fs.SyncDir(filepath.Dir(name))); err != nil {
		t.Fatal(err)
	}
}

// TestSortPicks: which files are rewritten, of files of 1024 bytes: each is its bytes on disk and those that are live; -1 is a file that is not
// sealed, live 0 one that is about to go.
func TestSortPicks(t *testing.T) {
	type file struct{ disk, kept int64 }
	for name, tc := range map[string]struct {
		files []file
		all   bool
		want  []int
	}{
		"full":                  {[]file{{1024, 1000}, {1024, 1000}, {1024, -1}}, false, nil},
		"thin":                  {[]file{{1024, 1000}, {1024, 400}, {1024, 1000}}, false, []int{1}},
		"a quarter":             {[]file{{1024, 100}, {1024, 100}, {1024, 100}, {1024, -1}}, false, []int{0, 1}},
		"the best":              {[]file{{1024, 500}, {1024, 1000}, {1024, 100}, {1024, 100}}, false, []int{2, 3}},
		"few bytes":             {[]file{{100, 49}, {1024, 900}}, false, nil},
		"hidden by tiny":        {[]file{{20, 8}, {20, 8}, {20, 8}, {1024, 900}, {1024, 500}}, false, []int{4}},
		"over what goes":        {[]file{{1024, 100}, {1024, 0}, {1024, 100}}, false, []int{0, 2}},
		"not over what goes on": {[]file{{1024, 100}, {1024, -1}, {1024, 90}}, false, []int{2}},
		"seven small":           {slices.Repeat([]file{{100, 90}}, 7), false, nil},
		"eight small":           {append(slices.Repeat([]file{{100, 90}}, 9), file{1024, 1000}), false, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		"all":                   {[]file{{1024, 1000}, {1024, 1000}}, true, []int{0}},
	} {
		l := &Log{cfg: Config{FileSize: 1024, SortAll: tc.all}}
		l.sorter.l, l.damage.l = l, l
		for i, f := range tc.files {
			g := &logFile{fileHeader: fileHeader{first: ident.Position(i * 1024), size: f.disk}}
			g.sealed.Store(f.kept >= 0)
			g.cut.Store(f.kept >= 0)
			if f.kept > 0 {
				g.live.Store(2)
				g.kept.Store(f.kept)
			}
			l.files.add(g)
		}
		var got []int
		for _, f := range l.sorter.pick() {
			got = append(got, int(f.first/1024))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: files %v, want %v", name, got, tc.want)
		}
	}
}

// TestSortYields: the log's own work comes first, as long as there is room.
func TestSortYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := sortConfig(vfs.NewMem())
		r := start(t, cfg)
		defer r.stop()
		r.begin()
		busy, stop := context.WithTimeout(context.Background(), 4*poolYieldPeriod)
		var user sync.WaitGroup
		defer user.Wait()
		defer stop()
		user.Go(func() {
			for busy.Err() == nil {
				r.pool.used.Add(r.pool.cfg.YieldRate)
				time.Sleep(poolYieldPeriod / 5)
			}
		})
		time.Sleep(2 * poolYieldPeriod)
		r.sorter.load.rate(time.Now())
		time.Sleep(poolYieldPeriod)
		if err := r.sorter.pace(busy, 1); err == nil {
			t.Error("it copied beside a busy log")
		}
		r.pool.room.Store(int32(LevelAvoid))
		r.pool.used.Add(r.pool.cfg.YieldRate)
		if err := r.sorter.pace(context.Background(), 1); err != nil {
			t.Error(err)
		}
	})
}
