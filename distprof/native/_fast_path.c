/* The fast path handles most module calls of a timed step: the module is known, the thread that trains calls it inside
 * a model's forward, and it gets a tensor and returns one.
 *
 * The fast path does what ModuleTimer of module_timer.py does with such a call, on the same lists, and passes all other
 * calls to ModuleTimer.  It is written in C because it runs for every module of every timed step, between kernels that
 * empty the caches: there, each object and each line of bytecode that is touched costs more than the work itself, and C
 * touches the fewest.  Without a compiler, ModuleTimer handles all calls, at twice the cost.
 *
 * Each Python function that the fast path calls is hidden from torch's compiler separately: the compiler looks at the
 * frames below the module patch, and C code has no frame.
 *
 * The file uses the limited API of Python 3.10, so that one binary serves all versions.
 */
#include "_timestamps.h"

/* The state of the fast path; the names are those of the constructor's arguments. */
#define FIELDS(X) \
    X(timer)           /* ModuleTimer: handles all other calls */ \
    X(row_of)          /* dict: id of a module -> its row */ \
    X(changes)         /* list of one number, which is another one after each change of row_of */ \
    X(stack)           /* list of rows of the running modules; empty outside of a forward, and in evaluation */ \
    X(entered)         /* list of rows, once for each call */ \
    X(owners)          /* list: the owner of each interval */ \
    X(timestamps)      /* the start of each interval */ \
    X(now)             /* function that reads the clock, where the timestamps do not read it themselves */ \
    X(nodes)           /* NodeHooks of the nodes at which the backward of rows begins */ \
    X(in_backward)     /* list, empty outside of backward */ \
    X(ended)           /* dict: rows whose backward ends with the gradients of their own parameters */ \
    X(entering)        /* dict: row -> function of (args, kwargs), called before the row runs */ \
    X(leaving)         /* dict: row -> function of the output, called after the row ran */ \
    X(plain)           /* torch.Tensor: neither a parameter nor a subclass */ \
    X(is_grad_enabled) \
    X(forward_only)    /* tuple that decides which calls do no more than call forward, or None */ \
    X(failed)          /* function that reports an exception: (where, exception) */

/* The calls of a step whose rows are kept. */
#define MOST_CALLS (1 << 16)

/* A module that was called, and its row. */
typedef struct {
    PyObject *module; /* for comparisons only: it may have been freed */
    PyObject *row;
} Call;

typedef struct {
    PyObject_HEAD
    FIELDS(DECLARE_FIELD)
    unsigned long thread; /* the thread that created this object */
    Call *known;          /* the calls of the steps before, in their order */
    Py_ssize_t size, capacity;
    PyObject *known_change; /* the number in `changes` that they belong to */
} FastPath;

COLLECTED(FastPath, path, FIELDS) /* the rows of known calls are numbers */

static PyObject *s_enter, *s_leave, *s_hook_input, *s_hook_output, *s_keep_edges;
static PyObject *s_grad_fn;
static PyObject *s_forward, *s_call_impl, *s_compiled_call_impl, *s_hooks[4];

/* The tuple `forward_only` has: functions that return None while neither torch.jit nor the compiler is active, dicts of
 * the hooks for all modules, nn.Module._call_impl, and the module types whose forward reads no frame above its own. */
enum { WATCHERS = 2, GLOBALS = 4, IMPL = WATCHERS + GLOBALS, TYPES };

static int keep_edges(FastPath *self, PyObject *node)
{
    PyObject *done = PyObject_CallMethodObjArgs(self->timer, s_keep_edges, node, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Decides what to do with the node of a plain `tensor`: it needs a hook, it has one, or the timer has to decide. */
enum todo { FAILED = -1, NOTHING, NEW, ASK_TIMER };

static enum todo inspect(FastPath *self, PyObject *tensor, PyObject **node, int64_t *number)
{
    static const enum todo todo[] = {ASK_TIMER, NOTHING, NEW};
    *node = PyObject_GetAttr(tensor, s_grad_fn);
    if (*node == NULL)
        return FAILED;
    if (*node == Py_None)
        return ASK_TIMER;
    *number = number_of(*node);
    return PyErr_Occurred() ? FAILED : todo[1 + is_highest(self->nodes, *number)];
}

/* Calls the function in `readers` for `row`, if there is one.  Returns -1 with an exception set. */
static int call_reader(PyObject *readers, PyObject *row, PyObject *first, PyObject *second)
{
    PyObject *reader = PyDict_Size(readers) > 0 ? PyDict_GetItemWithError(readers, row) : NULL;
    if (reader == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (is_row_reader(reader))
        return count_rows(reader, first, second);
    PyObject *done = PyObject_CallFunctionObjArgs(reader, first, second, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int hook_input(FastPath *self, PyObject *row, PyObject *module, PyObject *args, PyObject *kwargs)
{
    PyObject *tensor = PyTuple_Size(args) > 0 ? PyTuple_GetItem(args, 0) : NULL, *node = NULL;
    int64_t number;
    enum todo todo = ASK_TIMER;
    if (tensor != NULL && (PyObject *)Py_TYPE(tensor) == self->plain)
        todo = inspect(self, tensor, &node, &number);
    if (todo == NEW) {
        PyObject *enabled = PyObject_CallNoArgs(self->is_grad_enabled);
        if (enabled == NULL)
            todo = FAILED;
        else if (enabled == Py_True) {
            PyObject *caller = PyList_GetItem(self->stack, PyList_Size(self->stack) - 1);
            if (caller == NULL || add_node(self->nodes, node, number, caller) < 0)
                todo = FAILED;
        } else if (keep_edges(self, node) < 0)
            todo = FAILED;
        Py_XDECREF(enabled);
    } else if (todo == ASK_TIMER && node == Py_None && PyTuple_Size(args) == 1 && PyDict_Size(kwargs) == 0 &&
               PyDict_Contains(self->ended, row) == 1) {
        todo = NOTHING;
    } else if (todo == ASK_TIMER) {
        PyObject *done = PyObject_CallMethodObjArgs(self->timer, s_hook_input, row, module, args, kwargs, NULL);
        todo = done == NULL ? FAILED : NOTHING;
        Py_XDECREF(done);
    }
    Py_XDECREF(node);
    return todo == FAILED ? -1 : 0;
}

static int hook_output(FastPath *self, PyObject *row, PyObject *output)
{
    PyObject *node = NULL;
    int64_t number;
    enum todo todo = ASK_TIMER;
    if ((PyObject *)Py_TYPE(output) == self->plain)
        todo = inspect(self, output, &node, &number);
    if (todo == NEW && add_node(self->nodes, node, number, row) < 0)
        todo = FAILED;
    else if (todo == ASK_TIMER && node != Py_None) { /* None: a tensor without a node */
        PyObject *done = PyObject_CallMethodObjArgs(self->timer, s_hook_output, row, output, NULL);
        todo = done == NULL ? FAILED : NOTHING;
        Py_XDECREF(done);
    }
    Py_XDECREF(node);
    return todo == FAILED ? -1 : 0;
}

static void forget_calls(FastPath *self)
{
    while (self->size > 0)
        Py_XDECREF(self->known[--self->size].row);
}

/* Keeps a call of this step.  Without memory for it, its row is looked up again in the next step. */
static void keep_call(FastPath *self, Py_ssize_t place, Call call)
{
    if (place >= self->capacity) {
        Py_ssize_t capacity = 2 * place + 256;
        Call *grown = place > MOST_CALLS ? NULL : PyMem_Realloc(self->known, capacity * sizeof *grown);
        if (grown == NULL)
            return;
        self->known = grown;
        self->capacity = capacity;
    }
    while (self->size <= place) /* calls between them went to the timer */
        self->known[self->size++] = (Call){NULL, NULL};
    PyObject *before = self->known[place].row;
    Py_INCREF(call.row);
    self->known[place] = call;
    Py_XDECREF(before);
}

/* Returns the row of the module, a borrowed reference; NULL if it has none, or with an exception set.  Steps mostly call
 * the same modules in the same order: the row is at the place of the call, in memory that is read in order. */
static PyObject *row_of(FastPath *self, PyObject *module)
{
    PyObject *change = PyList_GetItem(self->changes, 0);
    Py_ssize_t place = PyList_Size(self->entered);
    if (change == NULL)
        return NULL;
    if (change != self->known_change) {
        PyObject *before = self->known_change;
        forget_calls(self);
        Py_INCREF(change);
        self->known_change = change;
        Py_XDECREF(before);
    }
    if (place < self->size && self->known[place].module == module)
        return self->known[place].row;
    PyObject *key = PyLong_FromVoidPtr(module);
    PyObject *row = key == NULL ? NULL : PyDict_GetItemWithError(self->row_of, key);
    Py_XDECREF(key);
    if (row != NULL)
        keep_call(self, place, (Call){module, row});
    return row;
}

/* A call begins.  Returns the token for `left`, a new reference; None if `left` is not to be called. */
static PyObject *entered(FastPath *self, PyObject *module, PyObject *args, PyObject *kwargs)
{
    PyObject *row = NULL;
    if (PyList_Size(self->stack) > 0 && PyList_Size(self->in_backward) == 0 &&
        PyThread_get_thread_ident() == self->thread) {
        row = row_of(self, module);
        if (row == NULL && PyErr_Occurred())
            return NULL;
    }
    if (row == NULL)
        return PyObject_CallMethodObjArgs(self->timer, s_enter, module, args, kwargs, NULL);
    Py_INCREF(row);
    if (PyList_Append(self->entered, row) < 0 || call_reader(self->entering, row, args, kwargs) < 0 ||
        switch_owner(self->timestamps, self->now, self->owners, row) < 0 ||
        hook_input(self, row, module, args, kwargs) < 0 || PyList_Append(self->stack, row) < 0) {
        Py_DECREF(row);
        return NULL;
    }
    return row;
}

/* The call with this token has ended and returned `output`, None if it raised.  Returns -1 with an exception set. */
static int left(FastPath *self, PyObject *row, PyObject *output)
{
    Py_ssize_t depth = PyList_Size(self->stack);
    if (depth < 2 || PyList_Size(self->in_backward) > 0) {
        PyObject *done = PyObject_CallMethodObjArgs(self->timer, s_leave, row, output, NULL);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    PyObject *caller = PyList_GetItem(self->stack, depth - 2);
    if (caller == NULL || PyList_SetSlice(self->stack, depth - 1, depth, NULL) < 0 ||
        call_reader(self->leaving, row, output, NULL) < 0 ||
        switch_owner(self->timestamps, self->now, self->owners, caller) < 0)
        return -1;
    return hook_output(self, row, output);
}

/* Reports the exception that is set and clears it.  Returns -1 if it came from outside: it is raised again then. */
static int report(FastPath *self, const char *where)
{
    PyObject *error = take_exception();
    PyObject *done = PyObject_CallFunction(self->failed, "sO", where, error);
    Py_XDECREF(error);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Returns whether torch's nn.Module._call_impl would only call the forward of `module`: the module has no hooks,
 * neither torch.jit nor torch's compiler is active, and no code can notice the missing frame.  Calling forward directly
 * saves a part of what the fast path costs.  Returns 0 when in doubt.
 */
static int calls_forward_only(FastPath *self, PyObject *module)
{
    if (PySet_Contains(PyTuple_GetItem(self->forward_only, TYPES), (PyObject *)Py_TYPE(module)) != 1)
        return 0;
    for (Py_ssize_t i = 0; i < WATCHERS; i++) {
        PyObject *watcher = PyObject_CallNoArgs(PyTuple_GetItem(self->forward_only, i));
        Py_XDECREF(watcher);
        if (watcher != Py_None)
            return 0;
    }
    for (Py_ssize_t i = WATCHERS; i < WATCHERS + GLOBALS; i++)
        if (PyDict_Size(PyTuple_GetItem(self->forward_only, i)) != 0)
            return 0;
    PyObject *own = PyObject_GenericGetDict(module, NULL);
    int plain = own != NULL && PyDict_GetItemWithError(own, s_call_impl) == NULL &&
                PyDict_GetItemWithError(own, s_forward) == NULL;
    for (size_t i = 0; plain && i < sizeof s_hooks / sizeof *s_hooks; i++) {
        PyObject *hooks = PyDict_GetItemWithError(own, s_hooks[i]);
        plain = hooks != NULL && PyDict_Size(hooks) == 0;
    }
    Py_XDECREF(own);
    if (!plain)
        return 0;
    PyObject *impl = PyObject_GetAttr((PyObject *)Py_TYPE(module), s_call_impl);
    Py_XDECREF(impl);
    return impl == PyTuple_GetItem(self->forward_only, IMPL);
}

/* Makes the call: original(module, *args, **kwargs), or directly what torch's own function would call. */
static PyObject *run(FastPath *self, PyObject *original, int is_plain, PyObject *module, PyObject *args,
                     PyObject *kwargs)
{
    PyObject *compiled = is_plain ? PyObject_GenericGetAttr(module, s_compiled_call_impl) : NULL;
    int forward_only = compiled == Py_None && self->forward_only != Py_None && calls_forward_only(self, module);
    PyErr_Clear(); /* of the checks */
    Py_XDECREF(compiled);
    if (compiled == Py_None) {
        PyObject *call = PyObject_GetAttr(module, forward_only ? s_forward : s_call_impl);
        PyObject *output = call == NULL ? NULL : PyObject_Call(call, args, kwargs);
        Py_XDECREF(call);
        return output;
    }
    PyObject *first = PyTuple_Pack(1, module);
    PyObject *all = first == NULL ? NULL : PySequence_Concat(first, args);
    PyObject *output = all == NULL ? NULL : PyObject_Call(original, all, kwargs);
    Py_XDECREF(first);
    Py_XDECREF(all);
    return output;
}

/* around(original, is_plain, module, args, kwargs) makes the whole call: see ModuleCallHandler of hooks/module_calls.py */
static PyObject *around(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    FastPath *self = (FastPath *)object;
    if (count != 5 || !PyTuple_Check(given[3]) || !PyDict_Check(given[4])) {
        PyErr_SetString(PyExc_TypeError, "around(original, is_plain, module, args, kwargs)");
        return NULL;
    }
    PyObject *module = given[2], *args = given[3], *kwargs = given[4];
    PyObject *token = entered(self, module, args, kwargs);
    if (token == NULL && report(self, "entering a module") < 0)
        return NULL;
    PyObject *output = run(self, given[0], given[1] == Py_True, module, args, kwargs);
    if (token == NULL || token == Py_None) {
        Py_XDECREF(token);
        return output;
    }
    PyObject *type, *error, *trace; /* the user's exception, if the call raised */
    PyErr_Fetch(&type, &error, &trace);
    int failed = left(self, token, output == NULL ? Py_None : output) < 0 && report(self, "leaving a module") < 0;
    Py_DECREF(token);
    if (failed) {
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(trace);
        Py_CLEAR(output);
    } else
        PyErr_Restore(type, error, trace);
    return output;
}

/* enter(module, args, kwargs) and leave(token, output), for callers that make the call themselves. */

static PyObject *enter(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    if (count == 3 && PyTuple_Check(given[1]) && PyDict_Check(given[2]))
        return entered((FastPath *)object, given[0], given[1], given[2]);
    PyErr_SetString(PyExc_TypeError, "enter(module, args, kwargs)");
    return NULL;
}

static PyObject *leave(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    if (count != 2)
        PyErr_SetString(PyExc_TypeError, "leave(token, output)");
    if (count != 2 || left((FastPath *)object, given[0], given[1]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Construction and destruction. */

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
#define X(name) #name,
    static char *names[] = {FIELDS(X) NULL};
#undef X
#define X(name) "O"
    static const char *format = FIELDS(X) "";
#undef X
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    FastPath *self = (FastPath *)allocate(type, 0);
    if (self == NULL)
        return NULL;
#define X(name) &self->name,
    int whole = PyArg_ParseTupleAndKeywords(args, kwargs, format, names, FIELDS(X) NULL);
#undef X
    FIELDS(OWN_FIELD)
    if (whole && !(PyDict_Check(self->row_of) && PyList_Check(self->changes) && PyList_Check(self->stack) &&
                   PyList_Check(self->entered) && PyList_Check(self->owners) && PyList_Check(self->in_backward) &&
                   is_node_hooks(self->nodes) && PyDict_Check(self->entering) && PyDict_Check(self->leaving) &&
                   PyDict_Check(self->ended))) {
        PyErr_SetString(PyExc_TypeError, "a fast path works on dicts, lists and NodeHooks");
        whole = 0;
    }
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    self->thread = PyThread_get_thread_ident();
    return (PyObject *)self;
}

static void finish(PyObject *object)
{
    FastPath *self = (FastPath *)object;
    forget_calls(self);
    PyMem_Free(self->known);
    Py_CLEAR(self->known_change);
    free_collected(object, path_clear);
}

static PyMethodDef methods[] = {
    {"around", (PyCFunction)(void (*)(void))around, METH_FASTCALL, NULL},
    {"enter", (PyCFunction)(void (*)(void))enter, METH_FASTCALL, NULL},
    {"leave", (PyCFunction)(void (*)(void))leave, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, make},         {Py_tp_dealloc, finish},   {Py_tp_traverse, path_traverse},
    {Py_tp_clear, path_clear},      {Py_tp_methods, methods},  {0, NULL},
};

static PyType_Spec spec = {
    .name = "distprof.native._fast_path.FastPath",
    .basicsize = sizeof(FastPath),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static PyMethodDef functions[] = {
    {"count_ids", count_ids, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "distprof.native._fast_path", .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC PyInit__fast_path(void)
{
    struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&s_enter, "enter"},
        {&s_leave, "leave"},
        {&s_hook_input, "hook_input"},
        {&s_hook_output, "hook_output"},
        {&s_keep_edges, "keep_edges"},
        {&s_grad_fn, "grad_fn"},
        {&s_call_impl, "_call_impl"},
        {&s_compiled_call_impl, "_compiled_call_impl"},
        {&s_forward, "forward"},
        {&s_hooks[0], "_backward_hooks"},
        {&s_hooks[1], "_backward_pre_hooks"},
        {&s_hooks[2], "_forward_hooks"},
        {&s_hooks[3], "_forward_pre_hooks"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].name = PyUnicode_InternFromString(names[i].text)) == NULL)
            return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || add_type(module, "FastPath", &spec) == NULL || add_timestamp_types(module) < 0 ||
        add_node_hook_type(module) < 0 || add_expert_row_types(module) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
