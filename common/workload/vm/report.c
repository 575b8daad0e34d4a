// SPDX-License-Identifier: GPL-2.0-only
/* The facts about a guest. Every value was read from where the key says, none is derived. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "report.h"

static void __printf(3, 4)
guest_fact(unsigned int vcpu, const char *name, const char *format, ...)
{
	char key[64], value[512];
	va_list args;

	snprintf(key, sizeof(key), "guest.%u.%s", vcpu, name);
	va_start(args, format);
	vsnprintf(value, sizeof(value), format, args);
	va_end(args);
	fact(key, "%s", value);
}

void report_guest_options(const struct vmm *vmm)
{
	fact("guest.memory_mib", "%llu", vmm->ram_size >> 20);
	fact("guest.pages", "%llu", vmm->ram_size / GUEST_PAGE_SIZE);
	fact("guest.vcpus", "%u", vmm->nr_vcpus);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		guest_fact(i, "pages", "%llu", vmm->vcpus[i].block->nr_pages);
}

static void report_vector(unsigned int vcpu, const char *name, const struct vcpu_state *state)
{
	struct guest_vector vector;

	vcpu_state_vector(state, &vector);
	guest_fact(vcpu, name, "%016llx%016llx%016llx%016llx:%016llx%016llx%016llx%016llx",
		   vector.sum[3], vector.sum[2], vector.sum[1], vector.sum[0],
		   vector.fold[3], vector.fold[2], vector.fold[1], vector.fold[0]);
}

u64 report_guest_errors(const struct vcpu *vcpu)
{
	u64 errors = 0;

	for (int kind = 0; kind < GUEST_NR_ERRORS; kind++)
		errors += READ_ONCE(vcpu->block->errors[kind]);
	return errors;
}

static u64 length(const struct guest_gap *gap)
{
	return gap->time_after - gap->time_before;
}

static void report_errors(unsigned int i, const struct guest_vcpu *block)
{
	static const char * const kinds[GUEST_NR_ERRORS] = {
		[GUEST_ERROR_MEMORY] = "memory",
		[GUEST_ERROR_GPR] = "gpr",
		[GUEST_ERROR_VECTOR] = "vector",
		[GUEST_ERROR_COUNTER] = "counter",
		[GUEST_ERROR_MSR] = "msr",
		[GUEST_ERROR_TIMER] = "timer",
	};
	const struct guest_first_error *first = &block->first_error;
	u64 errors = 0;

	for (int kind = 0; kind < GUEST_NR_ERRORS; kind++) {
		char name[32];

		snprintf(name, sizeof(name), "errors.%s", kinds[kind]);
		guest_fact(i, name, "%llu", block->errors[kind]);
		errors += block->errors[kind];
	}
	if (errors)
		guest_fact(i, "first_error",
			   "%s page %llu word 0x%llx expected 0x%016llx seen 0x%016llx",
			   kinds[first->kind], first->page, first->word, first->expected,
			   first->seen);
}

/* What was measured last: by how much the timer's count went down, and the counter up. */
static void report_timer_rate(unsigned int i, const struct guest_vcpu *block)
{
	char list[GUEST_RATES * 32] = "";
	int len = 0;

	for (int at = 0; at < GUEST_RATES && len < (int)sizeof(list); at++)
		len += snprintf(list + len, sizeof(list) - len, "%s%llu:%llu", at ? " " : "",
				block->timer_rate[at].count, block->timer_rate[at].time);
	guest_fact(i, "timer_rate", "%s", list);
}

void report_paused_guest(const struct vmm *vmm, const struct vm_state *state)
{
	static const char * const vectors[] = {
		[GUEST_VECTOR_SSE] = "sse",
		[GUEST_VECTOR_AVX] = "avx",
		[GUEST_VECTOR_NEON] = "neon",
	};

	fact("capture.pauses", "%u", vmm->pauses);
	fact("guest.vector", "%s", vectors[vmm->vcpus[0].block->vector_kind]);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		const struct guest_vcpu *block = vmm->vcpus[i].block;
		const struct vcpu_state *vcpu = &state->vcpu[i];

		guest_fact(i, "counter", "%llu", vcpu_state_steps(vcpu));
		guest_fact(i, "gpr", "%016llx", vcpu_state_checksum(vcpu));
		report_vector(i, "vector", vcpu);
		report_errors(i, block);
		guest_fact(i, "counter_offset", "%lld", (s64)vcpu_state_counter_offset(vcpu));
		guest_fact(i, "gap_max_tsc", "%llu", length(&block->gap_max));
		guest_fact(i, "clock_offset", "%lld", vmm->vcpus[i].clock_offset);
		guest_fact(i, "ticks", "%llu", block->ticks);
		report_timer_rate(i, block);
	}
}

/* Read back from KVM: what the vCPUs hold, not what was meant to be put there. */
void report_loaded_guest(struct vmm *vmm)
{
	static struct vcpu_state loaded;

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		vcpu_state_read_back(&vmm->vcpus[i], &loaded);
		guest_fact(i, "counter_at_load", "%llu", vcpu_state_steps(&loaded));
		guest_fact(i, "gpr_at_load", "%016llx", vcpu_state_checksum(&loaded));
		report_vector(i, "vector_at_load", &loaded);
	}
}

void report_refused_registers(const struct refused_registers *refused)
{
	char list[256] = "";
	int len = 0;

	for (unsigned int i = 0; i < refused->count && len < (int)sizeof(list); i++)
		len += snprintf(list + len, sizeof(list) - len, " 0x%llx", refused->id[i]);
	fact(REFUSED_FACT, "%u%s", refused->count, list);
}

void report_resumed_guest(struct vmm *vmm, const struct vm_state *state,
			  const u64 *at_resume, const u64 *at_finish, const u64 *at_end)
{
	report_pending(vmm, state);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		const struct guest_vcpu *block = vmm->vcpus[i].block;

		guest_fact(i, "resume.counter_before", "%llu", block->gap_max.counter_before);
		guest_fact(i, "resume.counter_after", "%llu", block->gap_max.counter_after);
		guest_fact(i, "resume.gap_tsc", "%llu", length(&block->gap_max));
		/* on the machine's counter, like t.paused and t.resume */
		guest_fact(i, "resume.gap_start", "%llu",
			   block->gap_max.time_before - vcpu_state_counter_offset(&state->vcpu[i]));
		guest_fact(i, "resume.gap_end", "%llu",
			   block->gap_max.time_after - vcpu_state_counter_offset(&state->vcpu[i]));
		guest_fact(i, "resume.next_gap_tsc", "%llu", length(&block->gap_next));
		guest_fact(i, "resume.next_gap_start", "%llu",
			   block->gap_next.time_before -
				   vcpu_state_counter_offset(&state->vcpu[i]));
		report_errors(i, block);
		guest_fact(i, "sweeps_after_resume", "%llu",
			   (at_finish[i] - at_resume[i]) / block->nr_pages);
		guest_fact(i, "sweeps_after_finish", "%llu",
			   (at_end[i] - at_finish[i]) / block->nr_pages);
		guest_fact(i, "clock_offset", "%lld", vmm->vcpus[i].clock_offset);
		guest_fact(i, "ticks", "%llu", block->ticks);
		report_timer_rate(i, block);
	}
}
