package network

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestAnInterruptedListIsAskedForAgain(t *testing.T) {
	calls := 0
	got, err := whole(func() ([]int, error) {
		if calls++; calls < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(got) != 2 || calls != 3 {
		t.Errorf("got %v, %v after %d calls, want both after 3", got, err, calls)
	}
	calls = 0
	other := errors.New("no netlink")
	if _, err := whole(func() ([]int, error) { calls++; return nil, other }); err != other || calls != 1 {
		t.Errorf("got %v after %d calls, want %v after 1", err, calls, other)
	}
}
