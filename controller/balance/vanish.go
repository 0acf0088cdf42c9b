package balance

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// vanished notices when many brokers go at once: then it is the network, or the power, and moving groups about makes
// things worse.
type vanished struct {
	seen    map[ident.Broker]time.Time // when each was last live and had not been asked to leave
	missing map[ident.Broker]bool      // who went when it stopped
	stopped bool
	why     string
}

// see takes down who lives.
func (v *vanished) see(in Input, within time.Duration) {
	if v.seen == nil {
		v.seen = make(map[ident.Broker]time.Time)
	}
	live := make(map[ident.Broker]bool, len(in.Brokers))
	for _, b := range in.Brokers {
		live[b.ID] = true
		if b.Draining {
			delete(v.seen, b.ID) // it may go
		} else {
			v.seen[b.ID] = in.Now
		}
		delete(v.missing, b.ID)
	}
	if v.stopped {
		if 3*len(v.missing) <= len(v.missing)+len(live) {
			v.resume()
		}
		return
	}
	gone := make(map[ident.Broker]bool)
	for id, at := range v.seen {
		if live[id] {
			continue
		}
		if in.Now.Sub(at) > within {
			delete(v.seen, id)
			continue
		}
		gone[id] = true
	}
	if 3*len(gone) > len(gone)+len(live) {
		v.stopped, v.missing = true, gone
		v.why = fmt.Sprintf("brokers %v vanished within %v, more than a third: it waits for them, or for an operator", slices.Sorted(maps.Keys(gone)), within)
	}
}

func (v *vanished) resume() {
	for id := range v.missing {
		delete(v.seen, id)
	}
	v.stopped, v.missing, v.why = false, nil, ""
}
