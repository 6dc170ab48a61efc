package agent

import (
	"sync"
)

// slot holds the newest value of something; putting replaces.
type slot[T comparable] struct {
	mu    *sync.Mutex
	value *T
	nudge chan struct{}
}

func newSlot[T comparable]() slot[T] {
	return slot[T]{mu: &sync.Mutex{}, value: new(T), nudge: make(chan struct{}, 1)}
}

func (s slot[T]) put(v T) {
	s.mu.Lock()
	*s.value = v
	s.mu.Unlock()
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// holds says whether there is a value to take.
func (s slot[T]) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.value != *new(T)
}

// take returns the newest value and empties the slot.
func (s slot[T]) take() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := *s.value
	*s.value = *new(T)
	return v
}
