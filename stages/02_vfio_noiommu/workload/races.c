// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whoever may write to sysfs takes a device, or the port above it, away while a VMM
 * preserves it, reboot() freezes it, or the session is given up. One of both is
 * refused, and nobody waits for the other for ever.
 *
 * With the second device, before anything is sent to it: what is left of this is what
 * the rest of the run uses. It is closed and opened again only where it was taken away: see
 * before_kexec().
 *
 * What came first is not told by time: whoever took it away may have been kept from looking at a
 * clock. It is told by the kernel's events: unbinding and removing end with one, under the lock
 * that preserving asks for, and nothing else causes any meanwhile.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "races.h"
#include "rules.h"
#include "vfio.h"

#define TAKEN_MS 10000
/*
 * From before PRESERVE_FD to where the session is given up, at least, since the device
 * is put to sleep and woken in between. Each moment of it is as likely.
 */
#define ROUND_US 20000
/* So long before PRESERVE_FD it may be taken away. */
#define AHEAD_US 600

/**
 * struct way - how a device is taken away
 * @key: of the fact
 * @take: returns 0, or -errno when it is refused
 * @waits: for the device's file to be closed
 */
struct way {
	const char *key;
	int (*take)(const char *bdf);
	bool waits;
};

/**
 * struct racer - who takes the device away
 * @way: how
 * @bdf: whose attribute is written to
 * @delay_us: so long after the round has begun
 * @ahead_us: PRESERVE_FD comes so long after that
 * @begun: the round has
 * @result: of @take, -ETIMEDOUT until then
 */
struct racer {
	const struct way *way;
	const char *bdf;
	u64 delay_us;
	u64 ahead_us;
	int begun;
	int result;
};

/**
 * struct tally - how the rounds of one way to take it away ended
 * @refused: it was, for the device is preserved
 * @waited: PRESERVE_FD was refused, and taking it away went on when the file was closed
 * @before: it was over before PRESERVE_FD
 * @after: it was not over before the session was closed
 * @wrong: anything else
 */
struct tally {
	u32 refused;
	u32 waited;
	u32 before;
	u32 after;
	u32 wrong;
};

static int unbind_device(const char *bdf)
{
	return pci_driver_unbind_and_wait(bdf, "vfio-pci");
}

static int unbind_port(const char *bdf)
{
	return pci_driver_unbind_and_wait(bdf, "pcieport");
}

static int remove_function(const char *bdf)
{
	return pci_attribute_write(bdf, "remove", "1");
}

static void spin_us(u64 us)
{
	u64 start = now_us();

	while (now_us() - start < us)
		;
}

static void *take_away(void *argument)
{
	struct racer *racer = argument;
	int ret;

	while (!__atomic_load_n(&racer->begun, __ATOMIC_ACQUIRE))
		;
	spin_us(racer->delay_us);
	ret = racer->way->take(racer->bdf);
	__atomic_store_n(&racer->result, ret, __ATOMIC_RELEASE);
	return NULL;
}

static int result_of(const struct racer *racer)
{
	return __atomic_load_n(&racer->result, __ATOMIC_ACQUIRE);
}

/* How many events (uevents) this kernel has had. */
static u64 events(void)
{
	char text[32];

	must(read_text("/sys/kernel/uevent_seqnum", text, sizeof(text)));
	return strtoull(text, NULL, 10);
}

/**
 * struct update - a live update that comes to nothing
 * @ret: of PRESERVE_FD; -EINVAL if reboot() was not refused as it must be
 * @preserved: events until PRESERVE_FD was through
 * @closing: events until the session was about to be closed
 */
struct update {
	int ret;
	u64 preserved;
	u64 closing;
};

/* reboot() must not freeze a device that sleeps, or that somebody has a lock of. */
static struct update update_once(const struct nic *nic, int luo_fd, struct racer *racer)
{
	int session_fd = must(luo_create_session(luo_fd, "race")), ret;
	struct update update;

	must(luo_preserve_fd(session_fd, nic->memfd, TOKEN_OTHER_MEMORY));
	__atomic_store_n(&racer->begun, 1, __ATOMIC_RELEASE);
	spin_us(racer->ahead_us);
	update.ret = luo_preserve_fd(session_fd, nic->device, TOKEN_OTHER_DEVICE);
	update.preserved = events();
	if (!update.ret) {
		set_power_state(nic, 3);
		ret = kexec_start();
		set_power_state(nic, 0);
		if (ret != -EIO && ret != -EBUSY)
			update.ret = -EINVAL;
	}
	update.closing = events();
	close(session_fd);
	return update;
}

/*
 * What is preserved is not taken away, and what is being taken away is not preserved. @last: the
 * event with which taking it away ended.
 */
static void count(struct tally *tally, const struct racer *racer, struct update update, u64 last)
{
	int result = result_of(racer);

	if (result == -EBUSY && !update.ret)
		tally->refused++;
	else if (!result && update.ret == -EBUSY)
		tally->waited++;
	else if (!result && !update.ret && update.preserved == last)
		tally->before++;
	else if (!result && !update.ret && update.closing < last)
		tally->after++;
	else if (!tally->wrong++)
		fact("races.wrong", "%s: %d, preserve %d, %llu events were to come, %llu at the end",
		     racer->bdf, result, update.ret, last - update.preserved,
		     last - update.closing);
}

/* As it was before the round. */
static void put_back(const struct nic *nic)
{
	must(pci_rescan());
	must(pci_driver_bind(places()->other_port, "pcieport"));
	must(pci_attribute_write(places()->other_port, "driver_override", "\n"));
	must(pci_driver_bind(nic->bdf, "vfio-pci"));
}

static void race_once(struct nic *nic, int luo_fd, struct racer *racer, struct tally *tally)
{
	struct deadline deadline = deadline_in_ms(TAKEN_MS);
	struct update update;
	pthread_t thread;
	bool closed;

	racer->begun = 0;
	racer->result = -ETIMEDOUT;
	must_be(!pthread_create(&thread, NULL, take_away, racer), "no thread");
	update = update_once(nic, luo_fd, racer);
	closed = racer->way->waits && result_of(racer) != -EBUSY;
	if (closed)
		nic_close(nic);
	while (result_of(racer) == -ETIMEDOUT) {
		must_be(!deadline_passed(deadline), "%s: who takes it away waits forever",
			racer->bdf);
		poll_pause();
	}
	pthread_join(thread, NULL);
	count(tally, racer, update, events());
	put_back(nic);
	if (closed)
		nic_open(nic);
}

static void race(struct nic *nic, int luo_fd, const struct way *way, const char *bdf, u64 rounds)
{
	struct racer racer = { .way = way, .bdf = bdf };
	struct tally tally = { };
	u64 random = param_nonce(), i;

	for (i = 0; i < rounds && !tally.wrong; i++) {
		/* Each time that it is waited for the device has to be opened again. */
		bool ahead = way->waits ? !i : !(i % 2);

		random = random * 6364136223846793005ull + 1442695040888963407ull;
		racer.delay_us = ahead ? 0 : (random >> 33) % ROUND_US;
		racer.ahead_us = ahead ? (random >> 33) % AHEAD_US : 0;
		race_once(nic, luo_fd, &racer, &tally);
	}
	fact(way->key, "%llu rounds: %u refused, %u kept it from being preserved, %u before, %u after, %u wrong",
	     i, tally.refused, tally.waited, tally.before, tally.after, tally.wrong);
}

void races(struct nic *nic, int luo_fd, u64 rounds, u64 unbind_port_rounds)
{
	static const struct way
		unbind = { "races.unbind", unbind_device, true },
		remove = { "races.remove", remove_function, true },
		port_unbind = { "races.unbind_port", unbind_port, false },
		port_remove = { "races.remove_port", remove_function, true };
	const char *port = places()->other_port;

	if (!rounds)
		return;
	must(kexec_load_incoming());
	nic_open(nic);
	race(nic, luo_fd, &unbind, nic->bdf, rounds);
	race(nic, luo_fd, &remove, nic->bdf, rounds);
	race(nic, luo_fd, &port_unbind, port, unbind_port_rounds);
	race(nic, luo_fd, &port_remove, port, rounds);
	nic_close(nic);
}
