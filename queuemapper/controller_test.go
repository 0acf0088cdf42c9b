package queuemapper

import (
	"errors"
	"testing"
	"time"
)

func TestClaimController(t *testing.T) {
	s, kv := faulty(t)
	if c := s.Map().Controller(); c != (Controller{}) {
		t.Errorf("controller of a new map: %+v", c)
	}
	kv.loseNext(1)
	for _, c := range []Controller{{Term: 3, Broker: 1}, {Term: 3, Broker: 1}, {Term: 4, Broker: 2}} {
		if err := s.ClaimController(t.Context(), c); err != nil || s.Map().Controller() != c {
			t.Errorf("claim %+v: %v, the map has %+v", c, err, s.Map().Controller())
		}
	}
	for _, c := range []Controller{{Term: 3, Broker: 1}, {Term: 4, Broker: 1}} {
		if err := s.ClaimController(t.Context(), c); !errors.Is(err, ErrConflict) { // O14
			t.Errorf("claim %+v: %v, want a conflict", c, err)
		}
	}
	if err := s.ClaimController(t.Context(), Controller{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("claim nothing: %v", err)
	}
}

func TestRemoveBroker(t *testing.T) {
	s, kv := faulty(t)
	other := openStore(t, s.cfg)
	if err := other.RegisterBroker(t.Context(), Broker{ID: 7, Incarnation: 50}); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveBroker(t.Context(), 7, 49); !errors.Is(err, ErrConflict) || s.Map().Broker(7) == nil {
		t.Errorf("remove an older incarnation: %v", err)
	}
	kv.loseNext(1)
	if err := s.RemoveBroker(t.Context(), 7, 50); err != nil || s.Map().Broker(7) != nil {
		t.Errorf("remove: %v, the map has %+v", err, s.Map().Broker(7))
	}
	if err := s.RemoveBroker(t.Context(), 7, 50); err != nil {
		t.Errorf("remove what is gone: %v", err)
	}
}

func TestPins(t *testing.T) {
	s := openStore(t, testConfig(t))
	if _, ok := s.Map().Pin(3); ok {
		t.Error("a pin in a new map")
	}
	for _, p := range []Pin{{Broker: 2}, {Broker: 1, Until: time.UnixMilli(1e12)}} {
		if err := s.PinGroup(t.Context(), 3, p); err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Map().Pin(3); !ok || !got.Until.Equal(p.Until) || got.Broker != p.Broker {
			t.Errorf("pin: %+v %v, want %+v", got, ok, p)
		}
	}
	if err := s.UnpinGroup(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Map().Pin(3); ok {
		t.Error("the pin is still there")
	}
	if err := s.PinGroup(t.Context(), 99, Pin{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("pin a group that is not there: %v", err)
	}
}
