/* A CUDA driver without a GPU, under the real cuda-core: memory of a GPU is the host's, and streams do at once what
   they are given. A capture records copies and what stub_launch() is given, and a graph does them again in that order.

   It finds no wait that is missing, as nothing here runs late: the fake in fake_cuda.py does. It shows that cuda-core
   is called as it wants to be, how often it calls the driver, and what becomes of the driver's errors. One thread. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901
};
enum { HOST = 1, DEVICE = 2 };                                            /* CUmemorytype */
enum { CONTEXT = 1, MEMORY_TYPE = 2, IS_MANAGED = 8, DEVICE_NUMBER = 9 }; /* CUpointer_attribute */
enum { PER_THREAD = 2 }; /* the last of three numbers that are default streams */
enum { DEVICES = 2, SIZE = 1 << 30 };

typedef void (*Work)(void*);

typedef struct Step { /* work, or a copy */
    struct Step* next;
    Work work;
    void *data, *target;
    const void* source;
    size_t size;
} Step;

typedef struct {
    Step *first, **end;
    int invalid;
} Graph;

typedef struct Stream {
    struct Stream* next;
    Graph* captured; /* what it gets goes in there */
} Stream;

typedef struct {
    Graph* captured;
} Event;

typedef struct Piece { /* of memory */
    struct Piece* next;
    char* start;
    size_t size;
    int kind, device;
} Piece;

static int contexts[DEVICES], pools[DEVICES];
static _Thread_local int* current;
static Stream* streams;
static Piece* pieces;
static void* freed_on;
static size_t available = SIZE;
static long calls;
static int replays = 1;

/* For tests. */

long stub_calls(void) { return calls; }
void* stub_freed_on(void) { return freed_on; }
void stub_set_available(size_t size) { available = size; }
void stub_set_replays(int whether) { replays = whether; }

int stub_pieces(void) {
    int count = 0;
    for (const Piece* piece = pieces; piece; piece = piece->next) count += piece->kind == DEVICE;
    return count;
}

static void run(const Step* step) {
    if (step->work)
        step->work(step->data);
    else
        memcpy(step->target, step->source, step->size);
}

static Graph* captured(const Stream* stream) { return (uintptr_t)stream <= PER_THREAD ? NULL : stream->captured; }

static void give(Stream* stream, Step step) {
    Graph* graph = captured(stream);
    if (!graph) {
        run(&step);
        return;
    }
    *graph->end = malloc(sizeof step);
    **graph->end = step;
    graph->end = &(*graph->end)->next;
}

void stub_launch(Stream* stream, Work work, void* data) { give(stream, (Step){.work = work, .data = data}); }

/* The driver. */

static int done(int status) {
    calls++;
    return status;
}

static int init(unsigned flags) { return done(flags ? INVALID_VALUE : SUCCESS); }
static int version(int* number) { return *number = 13010, done(SUCCESS); }
static int device_count(int* count) { return *count = DEVICES, done(SUCCESS); }
static int device_get(int* device, int index) { return *device = index, done(SUCCESS); }
static int device_name(char* name, int size, int device) {
    (void)device;
    return strncpy(name, "a stub", size), done(SUCCESS);
}
static int device_attribute(int* value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : 1; /* compute capability 8.9 */
    return done(SUCCESS);
}
static int device_memory(size_t* size, int device) { return (void)device, *size = SIZE, done(SUCCESS); }
static int device_uuid(char* uuid, int device) { return memset(uuid, device, 16), done(SUCCESS); }
static int device_pool(int** pool, int device) { return *pool = &pools[device], done(SUCCESS); }
static int pool_set(int* pool, int attribute, void* value) {
    return (void)pool, (void)attribute, (void)value, done(SUCCESS);
}
static int pool_get(int* pool, int attribute, uint64_t* value) {
    return (void)pool, (void)attribute, *value = 0, done(SUCCESS);
}

static int context_retain(int** context, int device) { return *context = &contexts[device], done(SUCCESS); }
static int context_current(int** context) { return *context = current, done(SUCCESS); }
static int context_set(int* context) { return current = context, done(SUCCESS); }
static int context_device(int* device) {
    if (!current) return done(INVALID_CONTEXT);
    *device = (int)(current - contexts);
    return done(SUCCESS);
}
static int context_priorities(int* least, int* greatest) { return *least = 0, *greatest = -5, done(SUCCESS); }

static int stream_create(Stream** stream, unsigned flags, int priority) {
    (void)flags, (void)priority;
    *stream = calloc(1, sizeof **stream);
    (*stream)->next = streams;
    streams = *stream;
    return done(SUCCESS);
}
static int stream_destroy(Stream* stream) {
    Stream** at = &streams;
    while (*at && *at != stream) at = &(*at)->next;
    if (!*at) return done(INVALID_VALUE);
    *at = stream->next;
    free(stream);
    return done(SUCCESS);
}
static int stream_synchronize(Stream* stream) {
    if (!captured(stream)) return done(SUCCESS);
    stream->captured->invalid = 1; /* nothing that waits may be captured */
    return done(CAPTURE_UNSUPPORTED);
}
static int stream_context(Stream* stream, int** context) { return (void)stream, *context = current, done(SUCCESS); }

static int event_create(Event** event, unsigned flags) {
    return (void)flags, *event = calloc(1, sizeof **event), done(SUCCESS);
}
static int event_destroy(Event* event) { return free(event), done(SUCCESS); }
static int event_record(Event* event, Stream* stream) { return event->captured = captured(stream), done(SUCCESS); }
static int event_synchronize(Event* event) { return (void)event, done(SUCCESS); }
static int stream_wait(Stream* stream, Event* event, unsigned flags) {
    (void)flags;
    if (event->captured) stream->captured = event->captured; /* it joins the capture */
    return done(SUCCESS);
}

static int allocate(void** memory, size_t size, int kind, int device) {
    if (kind == DEVICE && size > available) return done(OUT_OF_MEMORY);
    Piece* piece = malloc(sizeof *piece);
    *piece = (Piece){pieces, aligned_alloc(512, (size + 511) / 512 * 512), size, kind, device};
    pieces = piece;
    *memory = memset(piece->start, 0xAB, size);
    return done(SUCCESS);
}
static int release(void* memory) {
    Piece** at = &pieces;
    while (*at && (*at)->start != memory) at = &(*at)->next;
    if (!*at) return done(INVALID_VALUE);
    Piece* piece = *at;
    *at = piece->next;
    free(memset(piece->start, 0xDD, piece->size));
    free(piece);
    return done(SUCCESS);
}
static int memory_allocate(void** memory, size_t size, int* pool, Stream* stream) {
    return (void)stream, allocate(memory, size, DEVICE, (int)(pool - pools));
}
static int memory_free(void* memory, Stream* stream) { return freed_on = stream, release(memory); }
static int memory_allocate_host(void** memory, size_t size) { return allocate(memory, size, HOST, 0); }
static int memory_free_host(void* memory) { return release(memory); }
static int memory_copy(void* target, const void* source, size_t size, Stream* stream) {
    give(stream, (Step){.target = target, .source = source, .size = size});
    return done(SUCCESS);
}
static int memory_info(size_t* free_size, size_t* total) {
    return *free_size = available, *total = SIZE, done(SUCCESS);
}
static int pointer_attributes(unsigned count, const int* attributes, void** values, const char* pointer) {
    const Piece* piece = pieces;
    while (piece && !(piece->start <= pointer && pointer < piece->start + piece->size)) piece = piece->next;
    for (unsigned i = 0; i < count; i++) {
        if (attributes[i] == CONTEXT) *(int**)values[i] = piece ? &contexts[piece->device] : NULL;
        if (attributes[i] == MEMORY_TYPE) *(unsigned*)values[i] = piece ? piece->kind : 0;
        if (attributes[i] == IS_MANAGED) *(int*)values[i] = 0;
        if (attributes[i] == DEVICE_NUMBER) *(int*)values[i] = piece ? piece->device : 0;
    }
    return done(SUCCESS);
}
static int pointer_attribute(void* value, int attribute, const char* pointer) {
    return pointer_attributes(1, &attribute, &value, pointer);
}

static int capture_begin(Stream* stream, int mode) {
    (void)mode;
    stream->captured = calloc(1, sizeof *stream->captured);
    stream->captured->end = &stream->captured->first;
    return done(SUCCESS);
}
static int capture_end(Stream* stream, Graph** graph) {
    Graph* made = captured(stream);
    if (!made) return done(ILLEGAL_STATE);
    for (Stream* each = streams; each; each = each->next)
        if (each->captured == made) each->captured = NULL;
    *graph = made->invalid ? NULL : made;
    return done(made->invalid ? CAPTURE_INVALIDATED : SUCCESS);
}
static int capture_status(const Stream* stream) { return !captured(stream) ? 0 : stream->captured->invalid ? 2 : 1; }
static int capture_ask(Stream* stream, int* status) { return *status = capture_status(stream), done(SUCCESS); }
static int capture_info(Stream* stream, int* status, uint64_t* id, Graph** graph) {
    *status = capture_status(stream);
    if (id) *id = 1;
    if (graph && *status) *graph = stream->captured;
    return done(SUCCESS); /* the nodes that come before are not asked for */
}
static int graph_instantiate(Graph** ready, Graph* graph, void* options) {
    return (void)options, *ready = graph, done(SUCCESS);
}
static int graph_launch(Graph* graph, Stream* stream) {
    for (const Step* step = graph->first; replays && step; step = step->next) give(stream, *step);
    return done(SUCCESS);
}
static int nothing(void) { return done(SUCCESS); } /* graphs and what they hold are few, and stay */

static int error_name(int status, const char** name) {
    *name = status == OUT_OF_MEMORY         ? "CUDA_ERROR_OUT_OF_MEMORY"
            : status == CAPTURE_UNSUPPORTED ? "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
            : status == CAPTURE_INVALIDATED ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
                                            : "CUDA_ERROR_OF_THE_STUB";
    return SUCCESS;
}
static int error_text(int status, const char** text) { return (void)status, *text = "the stub says so", SUCCESS; }

typedef void (*Function)(void);

static const struct {
    const char* name;
    Function function;
} functions[] = {
    {"cuInit", (Function)init},
    {"cuDriverGetVersion", (Function)version},
    {"cuDeviceGetCount", (Function)device_count},
    {"cuDeviceGet", (Function)device_get},
    {"cuDeviceGetName", (Function)device_name},
    {"cuDeviceGetAttribute", (Function)device_attribute},
    {"cuDeviceTotalMem", (Function)device_memory},
    {"cuDeviceGetUuid", (Function)device_uuid},
    {"cuDeviceGetMemPool", (Function)device_pool},
    {"cuDeviceGetDefaultMemPool", (Function)device_pool},
    {"cuMemPoolSetAttribute", (Function)pool_set},
    {"cuMemPoolGetAttribute", (Function)pool_get},
    {"cuDevicePrimaryCtxRetain", (Function)context_retain},
    {"cuDevicePrimaryCtxRelease", (Function)nothing},
    {"cuCtxGetCurrent", (Function)context_current},
    {"cuCtxSetCurrent", (Function)context_set},
    {"cuCtxGetDevice", (Function)context_device},
    {"cuCtxGetStreamPriorityRange", (Function)context_priorities},
    {"cuStreamCreateWithPriority", (Function)stream_create},
    {"cuStreamDestroy", (Function)stream_destroy},
    {"cuStreamSynchronize", (Function)stream_synchronize},
    {"cuStreamGetCtx", (Function)stream_context},
    {"cuStreamWaitEvent", (Function)stream_wait},
    {"cuEventCreate", (Function)event_create},
    {"cuEventDestroy", (Function)event_destroy},
    {"cuEventRecord", (Function)event_record},
    {"cuEventSynchronize", (Function)event_synchronize},
    {"cuMemAllocFromPoolAsync", (Function)memory_allocate},
    {"cuMemFreeAsync", (Function)memory_free},
    {"cuMemAllocHost", (Function)memory_allocate_host},
    {"cuMemFreeHost", (Function)memory_free_host},
    {"cuMemcpyAsync", (Function)memory_copy},
    {"cuMemGetInfo", (Function)memory_info},
    {"cuPointerGetAttribute", (Function)pointer_attribute},
    {"cuPointerGetAttributes", (Function)pointer_attributes},
    {"cuStreamBeginCapture", (Function)capture_begin},
    {"cuStreamEndCapture", (Function)capture_end},
    {"cuStreamIsCapturing", (Function)capture_ask},
    {"cuStreamGetCaptureInfo", (Function)capture_info},
    {"cuGraphInstantiate", (Function)graph_instantiate},
    {"cuGraphInstantiateWithParams", (Function)graph_instantiate},
    {"cuGraphLaunch", (Function)graph_launch},
    {"cuGraphDestroy", (Function)nothing},
    {"cuGraphExecDestroy", (Function)nothing},
    {"cuGraphRetainUserObject", (Function)nothing},
    {"cuGraphReleaseUserObject", (Function)nothing},
    {"cuUserObjectCreate", (Function)nothing},
    {"cuUserObjectRelease", (Function)nothing},
    {"cuGetErrorName", (Function)error_name},
    {"cuGetErrorString", (Function)error_text},
};

int cuGetProcAddress_v2(const char* name, Function* function, int cuda, uint64_t flags, int* found) {
    (void)cuda, (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0) *function = functions[i].function;
    if (found) *found = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
