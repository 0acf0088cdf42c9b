package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// Pin keeps a placement group on one broker: somebody asked for it (kafka-reassign-partitions, an operator), and the
// balancer shall not move it elsewhere while that broker can have it.
type Pin struct {
	Broker ident.Broker
	Until  time.Time // the zero time: for good
}

// kindPin is the kind of the dynamic configs that hold pins; the name is the group.
const kindPin = "pin"

// Pin returns a group's pin. An outdated one is returned as well: the map knows no clock.
func (m *Map) Pin(group ident.Group) (Pin, bool) {
	c := m.Dynamic(kindPin, strconv.Itoa(int(group)))
	broker, err := strconv.ParseInt(c["broker"], 10, 32)
	if err != nil {
		return Pin{}, false
	}
	p := Pin{Broker: ident.Broker(broker)}
	if ms, err := strconv.ParseInt(c["until"], 10, 64); err == nil {
		p.Until = time.UnixMilli(ms)
	}
	return p, true
}

// PinGroup pins a group, or changes its pin; the zero time pins it for good.
func (s *Store) PinGroup(ctx context.Context, group ident.Group, p Pin) error {
	if s.Map().Group(group) == nil {
		return fmt.Errorf("pin group %d: %w", group, ErrNotFound)
	}
	return s.SetDynamic(ctx, kindPin, strconv.Itoa(int(group)), func(map[string]string) (map[string]string, error) {
		c := map[string]string{"broker": strconv.Itoa(int(p.Broker))}
		if !p.Until.IsZero() {
			c["until"] = strconv.FormatInt(p.Until.UnixMilli(), 10)
		}
		return c, nil
	})
}

// UnpinEmpty gives the groups back to the balancer in which nothing lives any more: what was pinned has been deleted, or went
// elsewhere, and what comes next was not meant.
func (s *Store) UnpinEmpty(ctx context.Context) error {
	var empty []ident.Group
	m := s.Map()
	for name := range m.DynamicNames(kindPin) {
		if id, err := strconv.Atoi(name); err == nil && m.Partitions(ident.Group(id)) == 0 {
			empty = append(empty, ident.Group(id))
		}
	}
	for _, group := range empty {
		err := s.SetDynamic(ctx, kindPin, strconv.Itoa(int(group)), func(map[string]string) (map[string]string, error) {
			if s.Map().Partitions(group) > 0 {
				return nil, errPinWanted
			}
			return nil, nil
		})
		if err != nil && !errors.Is(err, errPinWanted) {
			return err
		}
	}
	return nil
}

var errPinWanted = errors.New("the group is not empty any more")

// UnpinGroup gives a group back to the balancer.
func (s *Store) UnpinGroup(ctx context.Context, group ident.Group) error {
	return s.SetDynamic(ctx, kindPin, strconv.Itoa(int(group)), func(map[string]string) (map[string]string, error) {
		return nil, nil
	})
}
