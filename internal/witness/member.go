package witness

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/skeinmq/skein/internal/ident"
)

// MemberConfig configures a Member. The zero value of each field but ID means its default.
type MemberConfig struct {
	ID ID
	// MaxPartitions and MaxBytes bound all tables together: default 4,000,000 and 2 GiB. Owners that are refused find
	// another member.
	MaxPartitions int
	MaxBytes      int
}

// Member is the witness side of one broker in one incarnation: every table that it was sent and that may still be asked
// for. A broker that restarts is another Member, which knows nothing (O6).
type Member struct {
	cfg MemberConfig

	mu     sync.Mutex
	tables map[Key]*Table
}

// NewMember makes a member that knows nothing.
func NewMember(cfg MemberConfig) *Member {
	cfg.MaxPartitions = cmp.Or(cfg.MaxPartitions, 4_000_000)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 2<<30)
	return &Member{cfg: cfg, tables: make(map[Key]*Table)}
}

// ID names the member.
func (m *Member) ID() ID { return m.cfg.ID }

// Session is what one stream of an owner has at a member. It is for one goroutine.
type Session struct {
	m       *Member
	hello   Hello
	table   *Table // of the member
	loading *Table // the parts of the whole table so far
}

// Hello begins a session. It ends every older one for the same log and epoch.
func (m *Member) Hello(h Hello) (*Session, error) {
	if h.Member != m.cfg.ID {
		return nil, fmt.Errorf("hello to %s at %s: %w", h.Member, m.cfg.ID, ErrIncarnation)
	}
	t := m.tableOf(h.Key)
	if t == nil {
		return nil, fmt.Errorf("%d tables: %w", maxTables, ErrFull)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed {
		return nil, ErrSealed
	}
	if newer := cmp.Or(cmp.Compare(h.Owner.Incarnation, t.owner.Incarnation), cmp.Compare(h.Session, t.session)); newer <= 0 {
		return nil, fmt.Errorf("session %d of %s, known %d of %s: %w", h.Session, h.Owner, t.session, t.owner, ErrOld)
	}
	t.owner, t.session = h.Owner, h.Session
	return &Session{m: m, hello: h, table: t, loading: newTable(h.Key)}, nil
}

// maxTables bounds the tables of a member.
const maxTables = 1 << 16

// tableOf returns the table of a key, an empty one that is not whole when there is none; nil when there are too many.
func (m *Member) tableOf(key Key) *Table {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tables[key]
	if t == nil {
		if len(m.tables) >= maxTables {
			return nil
		}
		t = newTable(key)
		m.tables[key] = t
	}
	return t
}

// newest reports whether no other session has begun since.
func (s *Session) newest() error {
	if s.table.owner != s.hello.Owner || s.table.session != s.hello.Session {
		return fmt.Errorf("session %d of %s: %w", s.hello.Session, s.hello.Owner, ErrOld)
	}
	return nil
}

// Handle takes the next message of the session. It returns up to which number everything is recorded, and whether that
// may be told: a table in parts is not recorded before the last one. After an error the session takes nothing more.
func (s *Session) Handle(msg Message) (recorded uint64, tell bool, err error) {
	switch {
	case msg.Table != nil:
		return s.takeTable(msg.Table)
	case msg.Delta != nil:
		return s.takeDelta(*msg.Delta)
	}
	return 0, false, fmt.Errorf("%w: neither table nor delta", ErrMalformed)
}

func (s *Session) takeTable(part *TablePart) (uint64, bool, error) {
	if s.loading == nil {
		return 0, false, fmt.Errorf("a second whole table: %w", ErrOld)
	}
	for i := range part.Generations {
		s.loading.add(&part.Generations[i])
	}
	if err := s.m.room(s.loading.size); err != nil {
		return 0, false, err
	}
	if !part.Done {
		return 0, false, nil
	}
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	switch err := s.newest(); {
	case err != nil:
		return 0, false, err
	case t.sealed && !plants.afterSeal: // O10
		return 0, false, ErrSealed
	case part.Next == 0:
		return 0, false, fmt.Errorf("%w: table before number 0", ErrMalformed)
	case t.whole && part.Next-1 < t.recorded: // O5: it never goes backwards
		return 0, false, fmt.Errorf("table before %d, recorded %d: %w", part.Next, t.recorded, ErrOld)
	}
	t.gens, t.size, t.whole, t.recorded = s.loading.gens, s.loading.size, true, part.Next-1
	s.loading = nil
	return t.recorded, true, nil
}

func (s *Session) takeDelta(d Delta) (uint64, bool, error) {
	recorded, grown, err := s.record(d)
	if err == nil && grown {
		err = s.m.room(size{})
	}
	return recorded, err == nil, err
}

// record applies one delta and reports whether the table has grown so much that the bounds want a look.
func (s *Session) record(d Delta) (recorded uint64, grown bool, err error) {
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := s.newest(); err != nil {
		return 0, false, err
	}
	if s.loading != nil && !plants.gapAccepted { // what an older session recorded says nothing about what this one has sent
		return 0, false, fmt.Errorf("delta %d before the table of its session: %w", d.Number, ErrGap)
	}
	before := t.size
	if err := t.apply(d); err != nil {
		return 0, false, err
	}
	return t.recorded, t.size.partitions>>10 > before.partitions>>10 || t.size.bytes>>20 > before.bytes>>20, nil
}

// room refuses what would pass the bounds.
func (m *Member) room(more size) error {
	n := m.Stats()
	if n.Partitions+more.partitions > m.cfg.MaxPartitions || n.Bytes+more.bytes > m.cfg.MaxBytes {
		return fmt.Errorf("%d partitions in %d bytes: %w", n.Partitions+more.partitions, n.Bytes+more.bytes, ErrFull)
	}
	return nil
}

// Seal ends (log, epoch) here: every later update is refused (O10). It returns the table, the same each time. ErrUnknown: the
// member, or this incarnation of it, was never sent a whole one, or has forgotten it (O6).
func (m *Member) Seal(key Key, incarnation int64) (*Table, error) {
	m.mu.Lock()
	t := m.tables[key]
	m.mu.Unlock()
	if plants.emptyAnswer && (t == nil || incarnation != m.cfg.ID.Incarnation) {
		return NewTable(key, nil), nil
	}
	if incarnation != m.cfg.ID.Incarnation {
		return nil, fmt.Errorf("seal %s at %s, meant incarnation %d: %w", key, m.cfg.ID, incarnation, ErrUnknown)
	}
	if t == nil {
		return nil, fmt.Errorf("seal %s at %s: %w", key, m.cfg.ID, ErrUnknown)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.whole {
		return nil, fmt.Errorf("seal %s at %s: no whole table: %w", key, m.cfg.ID, ErrUnknown)
	}
	t.sealed = true
	return t, nil
}

// Forget drops the tables of a log below an epoch: its record is known to be at that epoch (O6). Nobody can ask for them
// any more. A log that is gone from the map is forgotten at the greatest epoch.
func (m *Member) Forget(log ident.Log, below ident.LogEpoch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.tables, func(k Key, _ *Table) bool { return k.Log == log && k.Epoch < below })
}

// MemberStats are what a member holds.
type MemberStats struct {
	Tables     int
	Sealed     int
	Partitions int
	Bytes      int // about
}

// Stats sums up all tables.
func (m *Member) Stats() MemberStats {
	var s MemberStats
	for _, t := range m.all() {
		t.mu.Lock()
		s.Tables++
		if t.sealed {
			s.Sealed++
		}
		s.Partitions += t.size.partitions
		s.Bytes += t.size.bytes
		t.mu.Unlock()
	}
	return s
}

// Keys lists the tables that the member has, in order: what a driver of Forget compares with the map.
func (m *Member) Keys() []Key {
	var out []Key
	for _, t := range m.all() {
		out = append(out, t.key)
	}
	return out
}

func (m *Member) all() []*Table {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Collect(maps.Values(m.tables))
	slices.SortFunc(out, func(a, b *Table) int {
		return cmp.Or(slices.Compare(a.key.Log[:], b.key.Log[:]), cmp.Compare(a.key.Epoch, b.key.Epoch))
	})
	return out
}
