package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// mapView is what the tests need of the operators' view of the map.
type mapView struct {
	Logs   []logView
	Groups []struct {
		Epoch int64
		Log   string
	}
}

type logView struct {
	ID     string
	Broker int
	State  string
}

func readMap(ctx context.Context, addr string) (view mapView, err error) {
	rq, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/v1/map", nil)
	if err != nil {
		return view, err
	}
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		return view, err
	}
	defer rs.Body.Close()
	if rs.StatusCode != http.StatusOK {
		return view, fmt.Errorf("GET /v1/map: %s", rs.Status)
	}
	return view, json.NewDecoder(rs.Body).Decode(&view)
}

// owned counts the open generations of each broker.
func (v mapView) owned() map[int]int {
	host := map[string]int{}
	for _, l := range v.Logs {
		host[l.ID] = l.Broker
	}
	out := map[int]int{}
	for _, g := range v.Groups {
		out[host[g.Log]]++
	}
	return out
}

// awaitGroups waits until the number of groups of a broker is what is wanted.
func (r *run) awaitGroups(id int, enough func(own, all, brokers int) bool) {
	r.t.Helper()
	c := r.c.(*Skein)
	var err error
	var view mapView
	for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		view, err = readMap(ctx, c.HTTP(2))
		cancel()
		if err == nil && len(view.Groups) > 0 && enough(view.owned()[id], len(view.Groups), len(r.c.IDs())) {
			return
		}
	}
	r.t.Fatalf("broker %d has %d of %d groups: %v\n%s", id, view.owned()[id], len(view.Groups), errors.Join(err), c.Logs())
}
