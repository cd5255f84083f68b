/* A stand-in for the X5's libdnn.so: the same symbols and structures, and the same vices.
 *
 * - One BPU: a thread takes tasks in turn; each lasts as long as `duration_us` says.
 * - Caches that are not coherent: the BPU sees what was flushed to it, and the CPU sees what the
 *   BPU wrote only after invalidating its cache.
 * - It reads its input at the end of a task and writes the output of a hung one when that is
 *   released, so that memory which is reused or freed too early does not go unnoticed.
 * - At most 32 open tasks.
 * - Memory has guards around it, which are looked at whenever it is flushed or freed.
 *
 * The network is one linear layer on the mean R, G and B of each 32x32 block, minus 128, by 128
 * (`network.py` has the same in ONNX). Every byte of the NV12 input counts.
 *
 * A model file is a protobuf message with the text "LIBDNN-STANDIN key=value ..." in it. Faults and
 * times are set by `standin_set`, or at load in the variable LIBDNN_STANDIN, in the same form. The
 * settings and counters lie in the file that LIBDNN_STANDIN_NUMBERS names, for other processes.
 *
 * Random faults: of 1000 calls of a function, as many as the setting of its name says have one. Half
 * of them return an error at once, having done nothing, as a wait whose task still runs; those that
 * free something free it first. A quarter is slow. A quarter hangs: a task until it is released, any
 * other call for `hang_us`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { INVALID_ARGUMENT = -6000001, INVALID_MODEL = -6000002, NO_FILE = -6000006,
       OUT_OF_MEMORY = -6000007, TIMED_OUT = -6000008, TASK_LIMIT = -6000009,
       INVALID_TASK = -6000011, FAILED = -6000012, INCOMPATIBLE = -6000014,
       SYS_INVALID_ARGUMENT = -6000129, SYS_OUT_OF_MEMORY = -6000130 };
enum { NV12 = 1, NV12_SEPARATE = 2, S8 = 8, S16 = 11, F32 = 13, S32 = 14 };
enum { NHWC = 0, NCHW = 2 };
enum { INVALIDATE = 1, CLEAN = 2 };
enum { BLOCK = 32 };

typedef struct { uint64_t phyAddr; void *virAddr; uint32_t memSize; } SysMem;
typedef struct { int32_t dimensionSize[8]; int32_t numDimensions; } Shape;
typedef struct { int32_t shiftLen; uint8_t *shiftData; } Shift;
typedef struct { int32_t scaleLen; float *scaleData; int32_t zeroPointLen; int8_t *zeroPointData; } Scale;
typedef struct {
  Shape valid, aligned;
  int32_t layout, type;
  Shift shift;
  Scale scale;
  int32_t quantiType, quantizeAxis, alignedByteSize, stride[8];
} Properties;
typedef struct { SysMem sysMem[4]; Properties properties; } Tensor;
typedef struct { int32_t core, dsp, priority, more; int64_t customId; int32_t reserved[2]; } Control;

_Static_assert(sizeof(SysMem) == 24 && sizeof(Properties) == 176 && sizeof(Tensor) == 272 &&
               sizeof(Control) == 32, "the structures are those of the real library");

/* Settings and counters */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;

/* `faults` counts the random faults of the function of this name. */
typedef struct { char name[40]; int64_t value, faults; } Number;

static Number own_numbers[] = {
  /* settings: durations, and at which call (counted from 1 since it was set) what fails how */
  {"duration_us", 0}, {"task_limit", 32},
  {"open_error", 0}, {"alloc_error_at", 0}, {"infer_error_at", 0}, {"infer_error", FAILED},
  {"wait_error_at", 0}, {"wait_error", FAILED}, {"hang_at", 0}, {"dead_at", 0},
  /* random faults: the first of the random numbers, durations, and how many of 1000 calls */
  {"seed", 1}, {"slow_us", 50000}, {"hang_us", 1000000},
  {"hbDNNInitializeFromFiles", 0}, {"hbDNNRelease", 0}, {"hbDNNGetModelNameList", 0},
  {"hbDNNGetModelHandle", 0}, {"hbDNNGetInputCount", 0}, {"hbDNNGetOutputCount", 0},
  {"hbDNNGetInputTensorProperties", 0}, {"hbDNNGetOutputTensorProperties", 0},
  {"hbDNNInfer", 0}, {"hbDNNWaitTaskDone", 0}, {"hbDNNReleaseTask", 0},
  {"hbSysAllocCachedMem", 0}, {"hbSysFlushMem", 0}, {"hbSysFreeMem", 0},
  /* counters */
  {"inferences", 0}, {"open_tasks", 0}, {"memories", 0}, {"models", 0}, {"reused_memory", 0},
  {"wild_writes", 0}, {"overruns", 0}, {"core", 0}, {"priority", 0},
};
enum { NUMBERS = sizeof own_numbers / sizeof *own_numbers };
static Number *numbers = own_numbers;

static Number *entry(const char *name) {
  for (int n = 0; n < NUMBERS; n++)
    if (!strcmp(numbers[n].name, name)) return &numbers[n];
  fprintf(stderr, "stand-in libdnn: there is no number '%s'\n", name);
  abort();
}

static int64_t *number(const char *name) { return &entry(name)->value; }

static int due(const char *at) { int64_t *n = number(at); return *n > 0 && --*n == 0; }

void standin_set(const char *name, int64_t value) {
  pthread_mutex_lock(&lock);
  *number(name) = value;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

int64_t standin_get(const char *name) {
  pthread_mutex_lock(&lock);
  int64_t value = *number(name);
  pthread_mutex_unlock(&lock);
  return value;
}

static int32_t value_in(const char *text, const char *key, int32_t otherwise) {
  size_t length = strlen(key);
  for (const char *at = text; (at = strstr(at, key)); at += length)
    if (at[-1] == ' ' && at[length] == '=') return atoi(at + length + 1);
  return otherwise;
}

/* Random faults */

static void sleep_us(int64_t us) {
  struct timespec t = {us / 1000000, us % 1000000 * 1000};
  while (nanosleep(&t, &t) && errno == EINTR) {}
}

/* Returns the code with which the call fails at once, or 0. `hangs` is set instead of hanging, for a
 * function that has a better way to. */
static int32_t fault(const char *function, int *hangs) {
  static const int32_t codes[] = {FAILED, INVALID_ARGUMENT, OUT_OF_MEMORY, TIMED_OUT, TASK_LIMIT,
                                  SYS_OUT_OF_MEMORY, -1};
  pthread_mutex_lock(&lock);
  Number *n = entry(function);
  uint64_t x = 0, kind = 0, choice = 0;
  if (n->value) {
    int64_t *seed = number("seed");
    *seed = (int64_t)((uint64_t)*seed * 6364136223846793005u + 1442695040888963407u);
    x = (uint64_t)*seed >> 33;
  }
  int due = n->value && (int64_t)(x % 1000) < n->value;
  if (due) {
    ++n->faults;
    kind = x / 1000 % 4;
    choice = x / 4000 % (sizeof codes / sizeof *codes);
  }
  int64_t slow = *number("slow_us"), hang = *number("hang_us");
  pthread_mutex_unlock(&lock);
  if (!due) return 0;
  if (kind < 2) return codes[choice];
  if (kind == 2) sleep_us(slow);
  else if (hangs) *hangs = 1;
  else sleep_us(hang);
  return 0;
}

/* Memory: a copy for the CPU's caches and one for the BPU */

enum { GUARD = 64, GUARDED = 0xc3 };

typedef struct Memory { uint8_t *cpu, *bpu; size_t size; int busy; struct Memory *next; } Memory;
static Memory *memories;

static uint8_t *guarded(size_t size) {
  uint8_t *whole = malloc(size + 2 * GUARD);
  memset(whole, GUARDED, size + 2 * GUARD);
  return whole + GUARD;
}

/* Counts a write beyond the memory's ends, and mends the guards. */
static void look_at_guards(const Memory *m) {
  uint8_t *ends[] = {m->cpu - GUARD, m->cpu + m->size};
  for (int end = 0; end < 2; end++)
    for (int n = 0; n < GUARD; n++)
      if (ends[end][n] != GUARDED) {
        ++*number("overruns");
        memset(ends[end], GUARDED, GUARD);
        break;
      }
}

static Memory *memory_of(uint64_t address) {
  for (Memory *m = memories; m; m = m->next)
    if ((uint64_t)(uintptr_t)m->bpu == address) return m;
  return NULL;
}

int32_t hbSysAllocCachedMem(SysMem *memory, uint32_t size) {
  if (!memory || !size) return SYS_INVALID_ARGUMENT;
  int32_t code = fault(__func__, NULL);
  if (code) return code;
  pthread_mutex_lock(&lock);
  if (due("alloc_error_at")) {
    code = SYS_OUT_OF_MEMORY;
  } else {
    Memory *m = malloc(sizeof *m);
    *m = (Memory){guarded(size), malloc(size), size, 0, memories};
    memset(m->cpu, 0xa5, size);
    memset(m->bpu, 0x5a, size);
    memories = m;
    *memory = (SysMem){(uintptr_t)m->bpu, m->cpu, size};
    ++*number("memories");
  }
  pthread_mutex_unlock(&lock);
  return code;
}

int32_t hbSysFreeMem(SysMem *memory) {
  int32_t failure = fault(__func__, NULL);
  pthread_mutex_lock(&lock);
  int32_t code = SYS_INVALID_ARGUMENT;
  for (Memory **m = &memories; memory && *m; m = &(*m)->next) {
    Memory *found = *m;
    if ((uint64_t)(uintptr_t)found->bpu != memory->phyAddr) continue;
    *m = found->next;
    look_at_guards(found);
    free(found->cpu - GUARD);
    free(found->bpu);
    free(found);
    --*number("memories");
    code = failure;
    break;
  }
  pthread_mutex_unlock(&lock);
  return code;
}

int32_t hbSysFlushMem(SysMem *memory, int32_t flag) {
  int32_t code = fault(__func__, NULL);
  if (code) return code;
  pthread_mutex_lock(&lock);
  Memory *m = memory ? memory_of(memory->phyAddr) : NULL;
  if (m) look_at_guards(m);
  if (m && flag == CLEAN) memcpy(m->bpu, m->cpu, m->size);
  if (m && flag == INVALIDATE) memcpy(m->cpu, m->bpu, m->size);
  pthread_mutex_unlock(&lock);
  return m ? 0 : SYS_INVALID_ARGUMENT;
}

/* Models */

typedef struct {
  char name[16];
  const char *listed[2];
  int32_t models, inputs, outputs, classes, width, height, features;
  Properties input, output;
  float *weights, *scales;
  int8_t zero_point;
  int32_t step;
} Model;

static void shape(Shape *s, int32_t rank, const int32_t *sizes) {
  memcpy(s->dimensionSize, sizes, rank * sizeof *sizes);
  s->numDimensions = rank;
}

static void describe_input(Model *m, const char *text) {
  Properties *p = &m->input;
  p->type = value_in(text, "input", NV12);
  p->layout = value_in(text, "layout", NCHW);
  int32_t pitch = value_in(text, "pitch", m->width), h = m->height, w = m->width;
  if (p->layout == NCHW) {
    shape(&p->valid, 4, (int32_t[]){value_in(text, "batch", 1), 3, h, w});
    shape(&p->aligned, 4, (int32_t[]){value_in(text, "batch", 1), 3, h, pitch});
  } else {
    shape(&p->valid, 4, (int32_t[]){1, h, w, 3});
    shape(&p->aligned, 4, (int32_t[]){1, h, pitch, 3});
  }
  p->alignedByteSize = pitch * h * 3 / 2;
}

static void describe_output(Model *m, const char *text) {
  Properties *p = &m->output;
  int32_t rank = value_in(text, "rank", 4), pad = value_in(text, "pad", 1);
  int32_t classes = m->classes, per_class = value_in(text, "per_class", 0);
  p->type = value_in(text, "output", F32);
  p->layout = NCHW;
  if (rank == 2) {
    shape(&p->valid, 2, (int32_t[]){1, classes});
    shape(&p->aligned, 2, (int32_t[]){1, classes + (pad - 1)});
  } else {
    shape(&p->valid, 4, (int32_t[]){1, classes, 1, 1});
    shape(&p->aligned, 4, (int32_t[]){1, classes, 1, pad});
  }
  /* strides: 0 says none, 1 says bytes, 2 says elements. */
  int32_t size = p->type == S8 ? 1 : p->type == S16 ? 2 : 4, step = size;
  int32_t strides = value_in(text, "strides", 1);
  for (int axis = rank - 1; axis >= 0; axis--) {
    if (strides) p->stride[axis] = strides == 1 ? step : step / size;
    if (axis == 1) m->step = step;
    step *= p->aligned.dimensionSize[axis];
  }
  p->alignedByteSize = value_in(text, "bytes", step);
  if (!value_in(text, "aligned", 1)) p->aligned = p->valid;
  if (p->type == F32) return;
  float unit = p->type == S8 ? 1 / 8.f : p->type == S16 ? 1 / 2048.f : 1 / 1048576.f;
  p->quantiType = value_in(text, "quanti", 2);
  p->quantizeAxis = value_in(text, "axis", 1);
  p->scale.scaleLen = per_class ? classes : 1;
  m->scales = malloc(classes * sizeof(float));
  for (int c = 0; c < classes; c++) m->scales[c] = per_class ? unit * (1 + c % 3) : unit;
  p->scale.scaleData = m->scales;
  m->zero_point = (int8_t)value_in(text, "zero_point", 0);
  if (m->zero_point) {
    p->scale.zeroPointLen = 1;
    p->scale.zeroPointData = &m->zero_point;
  }
}

static int32_t read_model(const char *path, Model **out) {
  FILE *file = fopen(path, "rb");
  if (!file) return NO_FILE;
  char text[4096] = "";
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  for (size_t n = 0; n < length; n++) if (!text[n]) text[n] = ' ';
  char *start = strstr(text, "LIBDNN-STANDIN ");
  if (!start) return INVALID_MODEL;
  if (value_in(start, "compiler", 1) != 1) return INCOMPATIBLE;
  Model *m = calloc(1, sizeof *m);
  strcpy(m->name, "standin");
  m->listed[0] = m->listed[1] = m->name;
  m->models = value_in(start, "models", 1);
  m->inputs = value_in(start, "inputs", 1);
  m->outputs = value_in(start, "outputs", 1);
  m->classes = value_in(start, "classes", 1000);
  m->width = value_in(start, "width", 224);
  m->height = value_in(start, "height", 224);
  m->features = 3 * (m->width / BLOCK) * (m->height / BLOCK);
  m->weights = malloc((size_t)m->features * m->classes * sizeof(float));
  /* Knuth's multiplicative hash: -0.5 to 0.5, each exact in a float. */
  for (uint32_t n = 0; n < (uint32_t)(m->features * m->classes); n++)
    m->weights[n] = (float)(((n + 1) * 2654435761u) >> 8) / 16777216.f - 0.5f;
  describe_input(m, start);
  describe_output(m, start);
  *out = m;
  return 0;
}

int32_t hbDNNInitializeFromFiles(void **packed, const char **files, int32_t count) {
  if (!packed || !files || count != 1) return INVALID_ARGUMENT;
  int32_t code = fault(__func__, NULL);
  if (!code) code = (int32_t)standin_get("open_error");
  if (!code) code = read_model(files[0], (Model **)packed);
  if (!code) {
    pthread_mutex_lock(&lock);
    ++*number("models");
    pthread_mutex_unlock(&lock);
  }
  return code;
}

int32_t hbDNNRelease(void *packed) {
  Model *m = packed;
  if (!m) return INVALID_ARGUMENT;
  int32_t code = fault(__func__, NULL);
  free(m->weights);
  free(m->scales);
  free(m);
  pthread_mutex_lock(&lock);
  --*number("models");
  pthread_mutex_unlock(&lock);
  return code;
}

int32_t hbDNNGetModelNameList(const char ***names, int32_t *count, void *packed) {
  Model *m = packed;
  if (!m) return INVALID_ARGUMENT;
  int32_t code = fault(__func__, NULL);
  if (code) return code;
  *names = m->listed;
  *count = m->models;
  return 0;
}

int32_t hbDNNGetModelHandle(void **handle, void *packed, const char *name) {
  if (!packed || strcmp(name, ((Model *)packed)->name)) return INVALID_ARGUMENT;
  int32_t code = fault(__func__, NULL);
  if (!code) *handle = packed;
  return code;
}

int32_t hbDNNGetInputCount(int32_t *count, void *handle) {
  int32_t code = fault(__func__, NULL);
  if (!code) *count = ((Model *)handle)->inputs;
  return code;
}

int32_t hbDNNGetOutputCount(int32_t *count, void *handle) {
  int32_t code = fault(__func__, NULL);
  if (!code) *count = ((Model *)handle)->outputs;
  return code;
}

int32_t hbDNNGetInputName(const char **name, void *handle, int32_t index) {
  (void)index;
  *name = handle ? "data" : NULL;
  return 0;
}

int32_t hbDNNGetOutputName(const char **name, void *handle, int32_t index) {
  (void)index;
  *name = handle ? "output" : NULL;
  return 0;
}

int32_t hbDNNGetInputTensorProperties(Properties *properties, void *handle, int32_t index) {
  int32_t code = index ? INVALID_ARGUMENT : fault(__func__, NULL);
  if (!code) *properties = ((Model *)handle)->input;
  return code;
}

int32_t hbDNNGetOutputTensorProperties(Properties *properties, void *handle, int32_t index) {
  int32_t code = index ? INVALID_ARGUMENT : fault(__func__, NULL);
  if (!code) *properties = ((Model *)handle)->output;
  return code;
}

/* Tasks */

typedef struct Task {
  Model *model;
  Tensor input, output;
  int64_t submitted;
  int done, released, hangs, code;
  struct Task *next;
} Task;

static Task *first;
static pthread_t bpu;
static int bpu_runs;

static const uint8_t *snapshot(const Task *task, const uint8_t **uv) {
  /* What the BPU sees of the input. Rows are as far apart as the aligned shape says. */
  static uint8_t *copy;
  const Properties *p = &task->input.properties;
  size_t luma = (size_t)task->model->height * p->aligned.dimensionSize[p->layout == NCHW ? 3 : 2];
  const uint8_t *y = (const uint8_t *)(uintptr_t)task->input.sysMem[0].phyAddr;
  copy = realloc(copy, luma * 3 / 2);
  memcpy(copy, y, luma);
  *uv = copy + luma;
  memcpy(copy + luma,
         p->type == NV12 ? y + luma : (const uint8_t *)(uintptr_t)task->input.sysMem[1].phyAddr,
         luma / 2);
  return copy;
}

static void features_of(const Model *m, int pitch, const uint8_t *y, const uint8_t *uv,
                        float *features) {
  int w = m->width, h = m->height, block = 0, blocks = (w / BLOCK) * (h / BLOCK);
  for (int top = 0; top < h; top += BLOCK)
    for (int left = 0; left < w; left += BLOCK, block++) {
      uint32_t sum[3] = {0, 0, 0};
      for (int row = 0; row < BLOCK; row++)
        for (int n = 0; n < BLOCK; n++) sum[0] += y[(size_t)(top + row) * pitch + left + n];
      for (int row = 0; row < BLOCK / 2; row++)
        for (int n = 0; n < BLOCK; n += 2) {
          const uint8_t *pair = uv + (size_t)(top / 2 + row) * pitch + left + n;
          sum[1] += pair[0];
          sum[2] += pair[1];
        }
      double Y = sum[0] / 1024., U = sum[1] / 256. - 128, V = sum[2] / 256. - 128;
      features[block] = (float)((Y + 1.4017 * V - 128) / 128);
      features[blocks + block] = (float)((Y - 0.3437 * U - 0.7142 * V - 128) / 128);
      features[2 * blocks + block] = (float)((Y + 1.7722 * U - 128) / 128);
    }
}

static float *logits_of(const Model *m, int pitch, const uint8_t *y, const uint8_t *uv) {
  float features[m->features], *logits = calloc(m->classes, sizeof(float));
  features_of(m, pitch, y, uv, features);
  for (int f = 0; f < m->features; f++)
    for (int c = 0; c < m->classes; c++) logits[c] += features[f] * m->weights[f * m->classes + c];
  return logits;
}

static void write_output(const Task *task, const float *logits) {
  const Model *m = task->model;
  const Properties *p = &m->output;
  uint8_t *out = (uint8_t *)(uintptr_t)task->output.sysMem[0].phyAddr;
  int size = p->type == S8 ? 1 : p->type == S16 ? 2 : 4;
  for (int c = 0; c < m->classes; c++) {
    uint8_t *at = out + (size_t)c * m->step;
    if (p->type == F32) {
      memcpy(at, &logits[c], 4);
      continue;
    }
    double limit = p->type == S8 ? 127 : p->type == S16 ? 32767 : 2147483647.;
    double value = __builtin_rint(logits[c] / m->scales[c]) + m->zero_point;
    int32_t whole = (int32_t)(value > limit ? limit : value < -limit ? -limit : value);
    memcpy(at, &whole, size);
  }
}

static int still_there(const Task *task) {
  return memory_of(task->input.sysMem[0].phyAddr) && memory_of(task->output.sysMem[0].phyAddr);
}

static void mark(const Task *task, int busy) {
  const Tensor *tensors[] = {&task->input, &task->output};
  for (int n = 0; n < 2; n++) {
    Memory *m = memory_of(tensors[n]->sysMem[0].phyAddr);
    if (!m) continue;
    if (busy && m->busy) ++*number("reused_memory");
    m->busy = busy;
  }
}

static int64_t nanoseconds(struct timespec t) { return t.tv_sec * 1000000000ll + t.tv_nsec; }

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return nanoseconds(t);
}

static void sleep_until(int64_t end) {
  struct timespec t = {end / 1000000000, end % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

/* Takes the first task to its end. Called with the lock held, which it lets go for a while. A task
 * begins when the one before should have ended, so that no time is lost to late wake-ups. */
static int64_t work_on(Task *task, int64_t free_since) {
  static int64_t computing;
  int64_t begin = task->submitted > free_since ? task->submitted : free_since;
  int64_t end = begin + *number("duration_us") * 1000;
  pthread_mutex_unlock(&lock);
  sleep_until(end - computing);
  pthread_mutex_lock(&lock);
  while (task->hangs && !task->released) pthread_cond_wait(&changed, &lock);
  if (task->hangs) end = now();
  if (task->code) return end;
  float *logits = NULL;
  if (still_there(task)) {
    const Properties *p = &task->input.properties;
    int pitch = p->aligned.dimensionSize[p->layout == NCHW ? 3 : 2];
    int64_t start = now();
    const uint8_t *uv, *y = snapshot(task, &uv);
    pthread_mutex_unlock(&lock);
    logits = logits_of(task->model, pitch, y, uv);
    computing = now() - start;
    sleep_until(end);
    pthread_mutex_lock(&lock);
  }
  if (logits && still_there(task)) write_output(task, logits);
  else ++*number("wild_writes");
  free(logits);
  return end;
}

static void *bpu_main(void *unused) {
  (void)unused;
  prctl(PR_SET_TIMERSLACK, 1);
  int64_t free_since = 0;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (!first || *number("dead_at") < 0) pthread_cond_wait(&changed, &lock);
    Task *task = first;
    free_since = work_on(task, free_since);
    mark(task, 0);
    first = task->next;
    task->done = 1;
    if (task->released) free(task);
    pthread_cond_broadcast(&changed);
  }
  return NULL;
}

static int large_enough(const Model *m, const Tensor *input, const Tensor *output) {
  const Properties *p = &input->properties;
  uint64_t luma = (uint64_t)m->height * p->aligned.dimensionSize[p->layout == NCHW ? 3 : 2];
  Memory *y = memory_of(input->sysMem[0].phyAddr), *o = memory_of(output->sysMem[0].phyAddr);
  if (!y || !o || o->size < (size_t)m->output.alignedByteSize) return 0;
  if (p->type == NV12) return y->size >= luma * 3 / 2;
  Memory *uv = memory_of(input->sysMem[1].phyAddr);
  return y->size >= luma && uv && uv->size >= luma / 2;
}

int32_t hbDNNInfer(void **handle, Tensor **output, const Tensor *input, void *model, Control *control) {
  if (!handle || *handle || !output || !*output || !input || !model || !control)
    return INVALID_ARGUMENT;
  int hangs = 0;
  int32_t code = fault(__func__, &hangs);
  if (code) return code;
  pthread_mutex_lock(&lock);
  *number("core") = control->core;
  *number("priority") = control->priority;
  if (!large_enough(model, input, *output)) code = INVALID_ARGUMENT;
  else if (*number("open_tasks") >= *number("task_limit")) code = TASK_LIMIT;
  else if (due("infer_error_at")) code = (int32_t)*number("infer_error");
  if (!code) {
    ++*number("inferences");
    ++*number("open_tasks");
    Task *task = calloc(1, sizeof *task);
    task->model = model;
    task->input = *input;
    task->output = **output;
    task->hangs = due("hang_at") || hangs;
    if (due("wait_error_at")) task->code = (int32_t)*number("wait_error");
    if (due("dead_at")) *number("dead_at") = -1;
    task->submitted = now();
    mark(task, 1);
    Task **last = &first;
    while (*last) last = &(*last)->next;
    *last = task;
    if (!bpu_runs) bpu_runs = !pthread_create(&bpu, NULL, bpu_main, NULL);
    pthread_cond_broadcast(&changed);
    *handle = task;
  }
  pthread_mutex_unlock(&lock);
  return code;
}

int32_t hbDNNWaitTaskDone(void *handle, int32_t milliseconds) {
  Task *task = handle;
  if (!task) return INVALID_TASK;
  int32_t failure = fault(__func__, NULL);
  if (failure) return failure;
  struct timespec end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += milliseconds / 1000;
  end.tv_nsec += milliseconds % 1000 * 1000000;
  end.tv_sec += end.tv_nsec / 1000000000;
  end.tv_nsec %= 1000000000;
  pthread_mutex_lock(&lock);
  int late = 0;
  while (!task->done && !late)
    late = milliseconds > 0 ? pthread_cond_timedwait(&changed, &lock, &end)
                            : pthread_cond_wait(&changed, &lock);
  int32_t code = task->done ? task->code : TIMED_OUT;
  pthread_mutex_unlock(&lock);
  return code;
}

int32_t hbDNNReleaseTask(void *handle) {
  Task *task = handle;
  if (!task) return INVALID_TASK;
  int32_t code = fault(__func__, NULL);
  pthread_mutex_lock(&lock);
  --*number("open_tasks");
  task->released = 1;
  if (task->done) free(task);
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return code;
}

const char *hbDNNGetErrorDesc(int32_t code) { return code == FAILED ? "stand-in failure" : "stand-in error"; }
const char *hbDNNGetVersion(void) { return "1.24.5 (stand-in)"; }

/* Moves the numbers to a file that other processes can map. */
static void share(const char *path) {
  int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void *shared = MAP_FAILED;
  if (file >= 0 && !ftruncate(file, sizeof own_numbers))
    shared = mmap(NULL, sizeof own_numbers, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (shared == MAP_FAILED) {
    perror(path);
    abort();
  }
  close(file);
  numbers = memcpy(shared, own_numbers, sizeof own_numbers);
}

__attribute__((constructor)) static void start(void) {
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&changed, &monotonic);
  const char *given = getenv("LIBDNN_STANDIN");
  char text[1024];
  snprintf(text, sizeof text, " %s", given ? given : "");
  for (int n = 0; n < NUMBERS; n++)
    numbers[n].value = value_in(text, numbers[n].name, (int32_t)numbers[n].value);
  const char *path = getenv("LIBDNN_STANDIN_NUMBERS");
  if (path) share(path);
}
