-- The layout of broker `redis-stream`. Of each queue:
--
--   stream   a record an entry, in the field `record`; read by the group `boost`, a consumer a worker
--   later    hash: number -> record, of delayed ones      delayed  sorted set: number by when it is due
--   deaths   hash: entry -> how many owners died with it   waiters  sorted set: worker by how much it would take
--   last     the last number given to a delayed one
--
-- An entry is running while it is pending with a consumer, until it is acknowledged and deleted. What is given back is
-- pending with the consumer `released`, and goes first: so it keeps its place. Its owner and its count of deliveries,
-- which goes up with each claim and never down, are what a delivery is known by: nobody settles what others run.

local STREAM, LATER, DELAYED, DEATHS = stem .. 'stream', stem .. 'later', stem .. 'delayed', stem .. 'deaths'
local GROUP, RELEASED = 'boost', 'released'

-- Calls a command that needs the group; returns `otherwise` where somebody has removed the stream or the group.
local function ask(otherwise, ...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'NOGROUP', 1, true) then return otherwise end
  error(reply)
end

-- Returns the last entry that the group has read; nothing where there is no group.
local function last_read()
  for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', STREAM)) do
    if group[2] == GROUP then return group[8] end
  end
end

local function make_group()
  if not last_read() then redis.call('XGROUP', 'CREATE', STREAM, GROUP, '0', 'MKSTREAM') end
end

local function pending(first, count, ...)
  return ask({}, 'XPENDING', STREAM, GROUP, first, '+', count, ...)
end

-- Appends records to the stream at `at`, and their entries, or numbers of the delayed ones, to `places`; returns how many
-- workers to wake.
local function store(at, records, asks, places)
  local ready, time, due = 0, now(), math.huge
  for i, record in ipairs(records) do
    local delay = asks[i] and asks[i][2] or 0
    if delay > 0 then
      places[i] = redis.call('INCR', at .. 'last')
      redis.call('HSET', at .. 'later', places[i], record)
      redis.call('ZADD', at .. 'delayed', time + delay, places[i])
      due = math.min(due, time + delay)
    else
      places[i] = redis.call('XADD', at .. 'stream', '*', 'record', record)
      ready = ready + 1
    end
  end
  return ready + (due < math.huge and is_next(at, due) or 0)
end

local function take_back(at, places)
  local commands = {}
  for _, place in ipairs(places) do
    if type(place) == 'number' then
      commands[#commands + 1] = {'ZREM', at .. 'delayed', place}
      commands[#commands + 1] = {'HDEL', at .. 'later', place}
    else
      commands[#commands + 1] = {'XDEL', at .. 'stream', place}
    end
  end
  return run_all(commands)
end

-- Places that nothing is ever stored at, and the keys that stay once nothing is stored there any more.
local NOWHERE, LASTING = {0, '0-0'}, {STREAM, stem .. 'last'}

-- What fell due is appended.
local function promote(time)
  local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', time, 'LIMIT', 0, 1000)
  if #due == 0 then return end
  local records = redis.call('HMGET', LATER, unpack(due))
  for _, record in ipairs(records) do
    if record then redis.call('XADD', STREAM, '*', 'record', record) end
  end
  redis.call('ZREM', DELAYED, unpack(due))
  redis.call('HDEL', LATER, unpack(due))
end

-- Returns the record of an entry's fields; a foreigner's fields are one, without an id.
local function record_of(fields)
  if fields[1] == 'record' and #fields == 2 then return fields[2] end
  return '\0\0\0\0' .. table.concat(fields, ' ')
end

-- Makes entries, given as the rows of XPENDING, this worker's. What was deleted meanwhile isn't among them.
local function claim_rows(worker, rows, found)
  if #rows == 0 then return 0 end
  local ids, counts = {}, {}
  for i, row in ipairs(rows) do ids[i], counts[row[1]] = row[1], row[4] end
  local bytes = 0
  for _, entry in ipairs(redis.call('XCLAIM', STREAM, GROUP, worker, 0, unpack(ids))) do
    if entry and entry[2] then
      local record = record_of(entry[2])
      bytes = bytes + #record
      found.ids[#found.ids + 1], found.records[#found.records + 1] = entry[1], record
      found.tokens[#found.tokens + 1] = tostring(counts[entry[1]] + 1)
    end
  end
  return bytes
end

local function forget(consumer) ask(0, 'XGROUP', 'DELCONSUMER', STREAM, GROUP, consumer) end

-- Returns the shortest lease of those that hold something; nothing where nobody does. Forgets workers that have been
-- silent for six leases and hold nothing: what one holds would be lost with it. One that comes back is a consumer again;
-- to Redis before 7.2 a worker that finds nothing is silent.
local function look_at_others(worker)
  local shortest
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', STREAM, GROUP)) do
    local name, holds, silent = consumer[2], consumer[4], consumer[6]
    if name ~= worker and name ~= RELEASED then
      local lease = lease_of(name)
      if holds > 0 then
        shortest = math.min(shortest or lease, lease)
      elseif silent > 6 * lease then
        forget(name)
      end
    end
  end
  return shortest
end

-- Returns the rows of what others haven't renewed within their leases, at least STEP of them if there are as many.
local function overdue(worker)
  local dead, shortest, first = {}, look_at_others(worker), '-'
  while shortest and first and #dead < STEP do
    local rows = redis.call('XPENDING', STREAM, GROUP, 'IDLE', shortest, first, '+', STEP)
    for _, row in ipairs(rows) do
      local owner, idle = row[2], row[3]
      local over = owner ~= worker and owner ~= RELEASED and idle >= lease_of(owner)
      if over and spared(owner, idle) <= 0 then dead[#dead + 1] = row end
    end
    first = #rows == STEP and '(' .. rows[STEP][1]
  end
  return dead
end

-- Takes over what its owners haven't renewed within their leases, counting their deaths; returns each with how many.
local function bury(worker, want, found, bytes)
  local dead, owners, deaths, buried = overdue(worker), {}, {}, {}
  for _, row in ipairs(dead) do owners[row[1]] = row[2] end
  local before, first, step = #found.ids, 1, next_step(want, #found.ids, bytes)
  while step > 0 and first <= #dead do
    local last = math.min(first + step - 1, #dead)
    bytes = bytes + claim_rows(worker, {unpack(dead, first, last)}, found)
    first, step = last + 1, next_step(want, #found.ids, bytes)
  end
  for i = before + 1, #found.ids do
    local owner = owners[found.ids[i]]
    deaths[owner] = (deaths[owner] or 0) + 1
    redis.call('HINCRBY', DEATHS, found.ids[i], 1)
  end
  for owner, count in pairs(deaths) do
    buried[#buried + 1], buried[#buried + 2] = owner, count
  end
  return buried, bytes
end

local function read_new(worker, want, found, bytes)
  local step = next_step(want, #found.ids, bytes)
  while step > 0 do
    local reply = redis.call('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', step, 'STREAMS', STREAM, '>')
    if not reply then return end
    for _, entry in ipairs(reply[1][2]) do
      local record = record_of(entry[2])
      bytes = bytes + #record
      found.ids[#found.ids + 1], found.records[#found.records + 1], found.tokens[#found.tokens + 1] = entry[1], record, '1'
    end
    step = next_step(want, #found.ids, bytes)
  end
end

-- Returns how many entries wait, and how many are running.
local function counts()
  local running = 0
  for _, consumer in ipairs(ask({}, 'XPENDING', STREAM, GROUP)[4] or {}) do
    if consumer[1] ~= RELEASED then running = running + consumer[2] end
  end
  return math.max(0, redis.call('XLEN', STREAM) - running), running
end

-- ARGV: worker, how many, the claim's number, lease, '1' to wait for more where nothing is there, '1' to look for the
-- dead, which goes through all that is pending, and for how long its connection has stood if it was lost before.
local function claim()
  local worker, want, waits, time = ARGV[2], tonumber(ARGV[3]), ARGV[6] == '1', now()
  if is_refused(worker, ARGV[4]) then return nil end
  strike(worker)
  promote(time)
  local found, buried, deaths, wait, bytes = {ids = {}, records = {}, tokens = {}}, {}, {}, -1, 0
  local step = next_step(want, 0, 0)
  local rows = ask(nil, 'XPENDING', STREAM, GROUP, '-', '+', step, RELEASED)
  if not rows then
    make_group()
    rows = {}
  end
  while #rows > 0 do
    bytes = bytes + claim_rows(worker, rows, found)
    step = next_step(want, #found.ids, bytes)
    rows = step > 0 and pending('-', step, RELEASED) or {}
  end
  if step > 0 and ARGV[7] == '1' then buried, bytes = bury(worker, want, found, bytes) end
  read_new(worker, want, found, bytes)
  if #found.ids > 0 then
    if redis.call('ZCARD', stem .. 'waiters') > 0 then ring(stem, counts() + passes_on(#found.ids, want)) end
    if redis.call('EXISTS', DEATHS) == 1 then deaths = redis.call('HMGET', DEATHS, unpack(found.ids)) end
  else
    local due = redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
    wait = due and math.max(0, due - time) or -1
    if waits then enter(worker, want) end
  end
  return {found.ids, found.tokens, found.records, deaths, wait, 0, buried}
end

-- Divides deliveries, each `stride` arguments that begin with entry and count, into those that the worker holds (entries,
-- numbers) and the positions of the others.
local function divide(stride)
  local held, numbers, fenced, number = {}, {}, {}, 0
  for i = 3, #ARGV, stride do
    local id = ARGV[i]
    local row = ask({}, 'XPENDING', STREAM, GROUP, id, id, 1)[1]
    number = number + 1
    if row and row[2] == ARGV[2] and row[4] == tonumber(ARGV[i + 1]) then
      held[#held + 1], numbers[#numbers + 1] = id, number
    else
      fenced[#fenced + 1] = number - 1
    end
  end
  return fenced, held, numbers
end

local function finish(ids)
  if #ids == 0 then return end
  redis.call('XACK', STREAM, GROUP, unpack(ids))
  redis.call('XDEL', STREAM, unpack(ids))
  redis.call('HDEL', DEATHS, unpack(ids))
end

-- Makes entries a consumer's and young again, without counting a delivery.
local function hand_to(consumer, ids)
  if #ids == 0 then return end
  local command = {'XCLAIM', STREAM, GROUP, consumer, 0, unpack(ids)}
  command[#command + 1] = 'JUSTID'
  redis.call(unpack(command))
end

-- Gives back all that a worker holds but for the entries in `kept`; returns how many.
local function give_back_all(worker, kept)
  local count, rows = 0, pending('-', 1000, worker)
  while #rows > 0 do
    local ids = {}
    for _, row in ipairs(rows) do
      if not kept[row[1]] then ids[#ids + 1] = row[1] end
    end
    hand_to(RELEASED, ids)
    count = count + #ids
    rows = pending('(' .. rows[#rows][1], 1000, worker)
  end
  return count
end

local function ack()
  local fenced, held = divide(2)
  finish(held)
  return fenced
end

local function release()
  local fenced, held = divide(2)
  hand_to(RELEASED, held)
  ring(stem, #held)
  return fenced
end

-- ARGV: worker, lease, then deliveries. What was claimed a moment ago, and isn't among them, is young by itself.
local function extend()
  table.remove(ARGV, 3)
  local fenced, held = divide(2)
  hand_to(ARGV[2], held)
  return fenced
end

-- ARGV: worker, the last claim made before it reconnected, and the entries that it knows to hold: others are given back.
local function recover()
  local kept = {}
  for i = 4, #ARGV do kept[ARGV[i]] = true end
  strike('')
  refuse_until(ARGV[2], ARGV[3])
  local count = give_back_all(ARGV[2], kept)
  ring(stem, count)
  return count
end

local function leave()
  strike(ARGV[2])
  local count = give_back_all(ARGV[2], {})
  forget(ARGV[2])
  ring(stem, count)
  return count
end

local function depth()
  local due = redis.call('ZCOUNT', DELAYED, '-inf', now())
  local ready, running = counts()
  return {ready + due, redis.call('ZCARD', DELAYED) - due, running}
end

-- Returns up to `count` entries that wait behind `after`, an entry behind the letter of where it stands: first those
-- given back (r), then those that nobody has read (n); and where this page ends.
local function waiting(after, count)
  local place, id = string.match(after, '^(%a)(.+)$')
  local entries = {}
  if place ~= 'n' then
    for _, row in ipairs(pending(id and '(' .. id or '-', count, RELEASED)) do
      entries[#entries + 1] = redis.call('XRANGE', STREAM, row[1], row[1])[1]
    end
    if #entries > 0 then return entries, 'r' .. entries[#entries][1] end
    id = last_read() or '0-0'
  end
  entries = redis.call('XRANGE', STREAM, '(' .. id, '+', 'COUNT', count)
  return entries, #entries > 0 and 'n' .. entries[#entries][1] or ''
end

-- ARGV: where the last page ended, how many. Returns where this one ends, and entry, record, time left of each.
local function peek()
  promote(now())
  local entries, last = waiting(ARGV[2], ARGV[3])
  local ids, records, left = {}, {}, {}
  for i, entry in ipairs(entries) do ids[i], records[i], left[i] = entry[1], record_of(entry[2]), -1 end
  return {last, ids, records, left}
end

-- Removes some messages that wait or are delayed; returns how many. ARGV: the window of what was seen.
local function purge()
  forget_seen(tonumber(ARGV[2]))
  local ids = {}
  for i, entry in ipairs((waiting('', 100))) do ids[i] = entry[1] end
  if #ids > 0 then
    finish(ids)
    return #ids
  end
  local delayed = redis.call('ZRANGE', DELAYED, 0, 999)
  if #delayed > 0 then
    redis.call('ZREM', DELAYED, unpack(delayed))
    redis.call('HDEL', LATER, unpack(delayed))
  end
  return #delayed
end
