// SPDX-License-Identifier: GPL-2.0-only
/*
 * What every guest does. Each vCPU sweeps its share of the pages for ever:
 * verify a page, write it anew, fold what was done into checksums that live in
 * registers. The stage's guest_main() calls guest_step() and does its own work
 * between two steps.
 * Copies of all register state stand in memory and are compared before each
 * fold, so a register that was not carried over is seen at the next step.
 *
 * Nothing here is told about the live update; a pause is visible only as a gap
 * between two readings of the counter.
 *
 * Four general registers and two of vectors belong to the guest for its whole
 * life: see guest_arch.h.
 */
#include "guest.h"
#include "guest_arch.h"
#include "guest_fpu.h"

static inline u64 rotate(u64 x, unsigned int bits)
{
	return x << bits | x >> (64 - bits);
}

static __cold void error(enum guest_error kind, u64 page, u64 word, u64 expected, u64 seen)
{
	bool first = true;

	for (int i = 0; i < GUEST_NR_ERRORS; i++)
		first &= !vcpu->errors[i];
	if (first) {
		vcpu->first_error.kind = kind;
		vcpu->first_error.page = page;
		vcpu->first_error.word = word;
		vcpu->first_error.expected = expected;
		vcpu->first_error.seen = seen;
	}
	WRITE_ONCE(vcpu->errors[kind], vcpu->errors[kind] + 1);
}

static void check_vector(void)
{
	struct guest_vector seen;
	int bad = -1;

	read_vector(&seen);
	for (int i = 0; i < vector_lanes(); i++)
		if (seen.sum[i] != vcpu->vector.sum[i] || seen.fold[i] != vcpu->vector.fold[i])
			bad = i;
	if (bad < 0)
		return;

	/* "word" is the lane; of the two registers the first that differs */
	if (seen.sum[bad] != vcpu->vector.sum[bad])
		error(GUEST_ERROR_VECTOR, cursor, bad, vcpu->vector.sum[bad], seen.sum[bad]);
	else
		error(GUEST_ERROR_VECTOR, cursor, bad, vcpu->vector.fold[bad], seen.fold[bad]);
	write_vector(&vcpu->vector);
}

static void fold_vector(u64 input)
{
	struct lanes lanes;

	for (int i = 0; i < vector_lanes(); i++) {
		lanes.lane[i] = input + i * GUEST_WORD_STEP;
		vcpu->vector.sum[i] = rotate(vcpu->vector.sum[i], 7) + lanes.lane[i];
		vcpu->vector.fold[i] ^= vcpu->vector.sum[i];
	}
	fold_vector_registers(&lanes);
}

/*
 * General registers: one that changed is counted once and put right, so that
 * one broken value makes one error and not one in every step.
 */
static void check_registers(void)
{
	if (vcpu != this_vcpu()) {
		u64 seen = (u64)vcpu;

		vcpu = this_vcpu();
		error(GUEST_ERROR_GPR, 0, REGISTER_VCPU, (u64)vcpu, seen);
	}
	if (cursor != READ_ONCE(vcpu->cursor)) {
		error(GUEST_ERROR_GPR, 0, REGISTER_CURSOR, vcpu->cursor, cursor);
		cursor = vcpu->cursor;
	}
	if (checksum != READ_ONCE(vcpu->checksum)) {
		error(GUEST_ERROR_GPR, 0, REGISTER_CHECKSUM, vcpu->checksum, checksum);
		checksum = vcpu->checksum;
	}
	if (counter != READ_ONCE(vcpu->counter)) {
		error(GUEST_ERROR_COUNTER, 0, REGISTER_COUNTER, vcpu->counter, counter);
		counter = vcpu->counter;
	}
}

static void start_fpu(void)
{
	for (unsigned int word = 0; word < GUEST_FPU_WORDS; word++)
		vcpu->fpu[word] = fpu_wanted(word);
	fpu_load(vcpu->fpu);
}

/* The first word that is not as it was loaded is told; each is wanted as it is from then on. */
static void check_fpu(void)
{
	u64 expected = 0, seen = 0;
	int first = -1;

	fpu_save(vcpu->fpu_seen);
	for (int word = GUEST_FPU_WORDS - 1; word >= 0; word--) {
		if (!((vcpu->fpu[word] ^ vcpu->fpu_seen[word]) & fpu_mask(word)))
			continue;
		first = word;
		expected = vcpu->fpu[word];
		seen = vcpu->fpu_seen[word];
		vcpu->fpu[word] = seen;
	}
	if (first >= 0)
		error(GUEST_ERROR_VECTOR, 0, first, expected, seen);
}

/* System registers that nothing but the guest writes. */

static u64 special_value(int index)
{
	u64 value = guest_mix(vcpu->nonce ^ (vcpu->id << 8 | index));

	return (value & special_mask(index)) | special_bits(index);
}

static void start_specials(void)
{
	vcpu->nr_specials = count_specials();
	vcpu->identity = cpu_identity();
	for (u64 i = 0; i < vcpu->nr_specials; i++)
		write_special(i, special_value(i));
}

/* A register is one thing to who asks for it by number, and may be another to who uses it. */
static void check_special(int index, u64 expected)
{
	u64 seen = read_special(index), used = seen;

	if (seen == expected)
		used = use_special(index, seen);
	if (used == expected)
		return;
	error(GUEST_ERROR_MSR, 0, special_number(index), expected, used);
	write_special(index, expected);
}

static void check_specials(void)
{
	u64 identity = cpu_identity();

	for (u64 i = 0; i < vcpu->nr_specials; i++)
		check_special(i, special_value(i));
	if (identity == vcpu->identity)
		return;
	error(GUEST_ERROR_MSR, 0, GUEST_IDENTITY, vcpu->identity, identity);
	vcpu->identity = identity;
}

/* Time */

static inline u64 length(const struct guest_gap *gap)
{
	return gap->time_after - gap->time_before;
}

static void note_time(void)
{
	u64 now = read_counter();
	struct guest_gap gap = {
		.time_before = vcpu->last_time,
		.time_after = now,
		.counter_before = vcpu->last_counter,
		.counter_after = counter,
	};

	vcpu->last_time = now;
	vcpu->last_counter = counter;
	if (length(&gap) > length(&vcpu->gap_max)) {
		vcpu->gap_next = vcpu->gap_max;
		vcpu->gap_max = gap;
	} else if (length(&gap) > length(&vcpu->gap_next)) {
		vcpu->gap_next = gap;
	}
	if (length(&gap) > vcpu->gap_threshold) {
		vcpu->gap_log[vcpu->gaps % GUEST_GAP_LOG] = gap;
		WRITE_ONCE(vcpu->gaps, vcpu->gaps + 1);
	} else {
		/* While the vCPU stands still no tick can be missed. */
		WRITE_ONCE(vcpu->tickless, READ_ONCE(vcpu->tickless) + length(&gap));
	}
	if (READ_ONCE(vcpu->tickless) > vcpu->tick_timeout) {
		error(GUEST_ERROR_TIMER, 0, 0, vcpu->tick_timeout, vcpu->tickless);
		WRITE_ONCE(vcpu->tickless, 0);
	}
}

/* Within these of so many steps, a fraction of the timer's period. */
#define RATE_STEPS	256
#define RATE_BEGINS	1
#define RATE_ENDS	100

/*
 * A reading that took little longer than any other, or count 0. So is a timer that has run out, and
 * that KVM has not come to start again: on a busy host, for many readings.
 */
static __cold struct guest_rate read_timer(void)
{
	u64 before = read_counter(), count = timer_count(), took = read_counter() - before;

	if (!vcpu->timer_took || took < vcpu->timer_took)
		vcpu->timer_took = took;
	if (took > vcpu->timer_took + vcpu->timer_took / 2)
		count = 0;
	return (struct guest_rate){ .count = count, .time = before + took / 2 };
}

static __cold __noinline void note_timer_rate(void)
{
	struct guest_rate *rate = &vcpu->timer_rate[vcpu->timer_rates % GUEST_RATES];
	struct guest_rate now = read_timer();

	if (cursor % RATE_STEPS == RATE_BEGINS) {
		vcpu->timer_began = now;
		return;
	}
	if (!now.count || !vcpu->timer_began.count)
		return;
	rate->count = vcpu->timer_began.count - now.count;
	if (now.count > vcpu->timer_began.count)
		rate->count += timer_period();
	rate->time = now.time - vcpu->timer_began.time;
	vcpu->timer_rates++;
}

/* Memory */

static void verify_page(u64 page, u64 version)
{
	const u64 *words = (const u64 *)(page * GUEST_PAGE_SIZE);
	u64 first = guest_pattern(vcpu->nonce, page, version);
	u64 expected = first, different = 0;

	for (int i = 0; i < GUEST_PAGE_WORDS; i += 8) {
		for (int j = 0; j < 8; j++) {
			different |= words[i + j] ^ expected;
			expected += GUEST_WORD_STEP;
		}
	}
	if (!different)
		return;

	expected = first;
	for (int i = 0; i < GUEST_PAGE_WORDS; i++, expected += GUEST_WORD_STEP) {
		if (words[i] == expected)
			continue;
		error(GUEST_ERROR_MEMORY, page, i, expected, words[i]);
		return;
	}
}

static void write_page(u64 page, u64 version)
{
	u64 *words = (u64 *)(page * GUEST_PAGE_SIZE);
	u64 value = guest_pattern(vcpu->nonce, page, version);

	for (int i = 0; i < GUEST_PAGE_WORDS; i += 8) {
		for (int j = 0; j < 8; j++) {
			words[i + j] = value;
			value += GUEST_WORD_STEP;
		}
	}
}

static void sweep_page(void)
{
	u64 page, input;

	check_registers();
	check_vector();
	counter++;
	WRITE_ONCE(vcpu->counter, vcpu->counter + 1);
	note_time();

	page = vcpu->first_page + cursor;
	if (vcpu->version)
		verify_page(page, vcpu->version);
	write_page(page, vcpu->version + 1);

	input = guest_mix(page << 32 ^ vcpu->version);
	checksum = rotate(checksum, 5) + input;
	vcpu->checksum = rotate(vcpu->checksum, 5) + input;
	fold_vector(input);

	cursor++;
	vcpu->cursor++;
	if (cursor % RATE_STEPS == RATE_BEGINS || cursor % RATE_STEPS == RATE_ENDS)
		note_timer_rate();
}

/* Once for some 10,000 steps: kept out of their page, see guest.lds. */
static __cold __noinline void end_sweep(void)
{
	if (!breakpoint_hits())
		error(GUEST_ERROR_MSR, 0, GUEST_BREAKPOINT, 1, 0);
	check_specials();
	check_fpu();
	vcpu->version++;
	cursor = 0;
	vcpu->cursor = 0;
	WRITE_ONCE(vcpu->sweeps, vcpu->version);
}

__cold void guest_start(struct guest_vcpu *block)
{
	vcpu = block;
	cursor = 0;
	counter = 0;
	checksum = 0;

	start_this_vcpu(block);
	start_vector();
	start_fpu();
	start_interrupts();
	/* Some are registers of the interrupt controller. */
	start_specials();
	vcpu->last_time = read_counter();
}

void guest_step(void)
{
	/* Not the register, which would end the sweep before its check sees it. */
	if (READ_ONCE(vcpu->cursor) >= vcpu->nr_pages)
		end_sweep();
	sweep_page();
}
