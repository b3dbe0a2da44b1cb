/* DPDK's librte_acl as a peer of the classifier: rules as its own l3fwd-acl lays them out, five fields of IPv4.
 *
 * usage: acl FILE CORE huge|plain
 * FILE, all little-endian: u32 rules, u32 headers; then per rule src, src length, dst, dst length, first and last
 * source port, first and last destination port, protocol, protocol mask (u32 each), then per header source,
 * destination, source port, destination port, protocol (u32 each).
 *
 * Says "built SECONDS BYTES ALGORITHM", then obeys lines on standard input:
 *   answers OUT     writes the index of the rule of each header to OUT (u32, 0xFFFFFFFF for none), says "done"
 *   run MS          looks headers up, round and round, for so long; says lookups a second
 * The process sleeps between two lines, so that another contender can have the core.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_byteorder.h>
#include <rte_cpuflags.h>
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>

/* As many as l3fwd-acl takes from a port at once. */
#define BURST 64

struct header {
    uint8_t protocol;
    uint8_t pad[3];
    uint32_t source, destination;
    uint16_t source_port, destination_port;
};

enum { PROTOCOL, SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT, FIELDS };

static const struct rte_acl_field_def fields[FIELDS] = {
    {RTE_ACL_FIELD_TYPE_BITMASK, 1, PROTOCOL, 0, offsetof(struct header, protocol)},
    {RTE_ACL_FIELD_TYPE_MASK, 4, SOURCE, 1, offsetof(struct header, source)},
    {RTE_ACL_FIELD_TYPE_MASK, 4, DESTINATION, 2, offsetof(struct header, destination)},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, SOURCE_PORT, 3, offsetof(struct header, source_port)},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, DESTINATION_PORT, 3, offsetof(struct header, destination_port)},
};

RTE_ACL_RULE_DEF(rule, FIELDS);

static void die(const char *what) {
    fprintf(stderr, "acl: %s\n", what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint32_t word(FILE *file) {
    uint32_t value;
    if (fread(&value, sizeof value, 1, file) != 1)
        die("the file is cut");
    return value;
}

static struct rte_acl_ctx *build(FILE *file, uint32_t count, const char **algorithm) {
    struct rte_acl_param parameters = {"acl", SOCKET_ID_ANY, RTE_ACL_RULE_SZ(FIELDS), count};
    struct rte_acl_ctx *context = rte_acl_create(&parameters);
    if (context == NULL)
        die("no room for the rules");
    for (uint32_t i = 0; i < count; i++) {
        struct rule r = {.data = {.category_mask = 1, .priority = RTE_ACL_MAX_PRIORITY - i, .userdata = i + 1}};
        r.field[SOURCE].value.u32 = word(file);
        r.field[SOURCE].mask_range.u32 = word(file);
        r.field[DESTINATION].value.u32 = word(file);
        r.field[DESTINATION].mask_range.u32 = word(file);
        r.field[SOURCE_PORT].value.u16 = word(file);
        r.field[SOURCE_PORT].mask_range.u16 = word(file);
        r.field[DESTINATION_PORT].value.u16 = word(file);
        r.field[DESTINATION_PORT].mask_range.u16 = word(file);
        r.field[PROTOCOL].value.u8 = word(file);
        r.field[PROTOCOL].mask_range.u8 = word(file);
        if (rte_acl_add_rules(context, (struct rte_acl_rule *)&r, 1) != 0)
            die("a rule is not taken");
    }
    struct rte_acl_config config = {.num_categories = 1, .num_fields = FIELDS};
    memcpy(config.defs, fields, sizeof fields);
    if (rte_acl_build(context, &config) != 0)
        die("the rules cannot be built");
    *algorithm = "default";
    if (rte_cpu_get_flag_enabled(RTE_CPUFLAG_AVX2) > 0 &&
        rte_acl_set_ctx_classify(context, RTE_ACL_CLASSIFY_AVX2) == 0)
        *algorithm = "avx2";
    return context;
}

static const uint8_t **data;
static uint32_t *results, headers;

static void pass(const struct rte_acl_ctx *context) {
    for (uint32_t i = 0; i < headers; i += BURST) {
        uint32_t n = headers - i < BURST ? headers - i : BURST;
        if (rte_acl_classify(context, data + i, results + i, n, 1) != 0)
            die("a lookup failed");
    }
}

int main(int argc, char **argv) {
    if (argc != 4)
        die("usage: acl FILE CORE huge|plain");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(atoi(argv[2]), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("cannot pin to the core");
    char lcores[32];
    snprintf(lcores, sizeof lcores, "0@%s", argv[2]);
    int huge = strcmp(argv[3], "huge") == 0;
    char *arguments[] = {"acl", "--no-pci", "--no-telemetry", "--log-level=4", "--lcores", lcores,
                         huge ? "--in-memory" : "--no-huge", "-m", huge ? "64" : "6144", NULL};
    if (rte_eal_init(9, arguments) < 0)
        die("EAL does not start");

    FILE *file = fopen(argv[1], "rb");
    if (file == NULL)
        die("no such file");
    uint32_t rules = word(file);
    headers = word(file);
    const char *algorithm;
    double started = now();
    struct rte_acl_ctx *context = build(file, rules, &algorithm);
    double seconds = now() - started;
    struct rte_malloc_socket_stats memory;
    rte_malloc_get_socket_stats(0, &memory);

    struct header *all = aligned_alloc(64, (headers * sizeof *all + 63) / 64 * 64);
    data = malloc(headers * sizeof *data);
    results = malloc(headers * sizeof *results);
    for (uint32_t i = 0; i < headers; i++) {
        all[i].source = rte_cpu_to_be_32(word(file));
        all[i].destination = rte_cpu_to_be_32(word(file));
        all[i].source_port = rte_cpu_to_be_16(word(file));
        all[i].destination_port = rte_cpu_to_be_16(word(file));
        all[i].protocol = word(file);
        data[i] = (const uint8_t *)&all[i];
    }
    printf("built %f %zu %s\n", seconds, (size_t)memory.heap_allocsz_bytes, algorithm);
    fflush(stdout);

    char line[4096], out[4096];
    long ms;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "answers %4095s", out) == 1) {
            pass(context);
            FILE *answers = fopen(out, "wb");
            for (uint32_t i = 0; i < headers; i++) {
                uint32_t index = results[i] - 1;
                if (answers == NULL || fwrite(&index, sizeof index, 1, answers) != 1)
                    die("the answers cannot be written");
            }
            fclose(answers);
            printf("done\n");
        } else if (sscanf(line, "run %ld", &ms) == 1) {
            uint64_t lookups = 0;
            double from = now(), end = from + ms / 1e3, at;
            do {
                pass(context);
                lookups += headers;
            } while ((at = now()) < end);
            printf("%f\n", lookups / (at - from));
        } else {
            die("what is asked?");
        }
        fflush(stdout);
    }
    return 0;
}
