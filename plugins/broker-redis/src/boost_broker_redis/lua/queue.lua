-- The layout of broker `redis`. Of each queue:
--
--   last     the last number given; with its priority it makes a message's place in line, its name from then on
--   body     hash: place -> record                  ready    sorted set of places, next first
--   delayed  sorted set: place by when it is due    expiry   sorted set: place by when it expires, while it waits
--   own:W    hash: place -> mark, what worker W holds      workers  sorted set: W by how long its lease runs
--   deaths   hash: place -> how many owners died with it   waiters  sorted set: W by how much it would take
--
-- A message stands in one of ready, delayed and own. A mark is the number of the claim, and behind a colon when the
-- message expires: so a delivery that was lost is known by its mark, even where the same worker has claimed it again.

local BODY, DEATHS = stem .. 'body', stem .. 'deaths'

local READY, EXPIRY = stem .. 'ready', stem .. 'expiry'

local DELAYED = stem .. 'delayed'

local WORKERS = stem .. 'workers'

local PLACES = 17592186044416  -- of one priority: 2^44; with 256 of them a place is exact in a double

local function own(worker) return stem .. 'own:' .. worker end

-- Appends records to the line at `at`, and their places to `places`; returns how many workers to wake.
local function store(at, records, asks, places)
  if #records == 0 then return 0 end
  local last = redis.call('INCRBY', at .. 'last', #records) - #records
  local time, bodies, ready, delayed, expiry, due = now(), {}, {}, {}, {}, math.huge
  for i, record in ipairs(records) do
    local place, ask, line, score = last + i, asks[i], ready, nil
    if ask then
      place = place - ask[1] * PLACES
      if ask[2] > 0 then
        line, score = delayed, time + ask[2]
        due = math.min(due, score)
      end
      if ask[3] then
        expiry[#expiry + 1] = time + ask[3]
        expiry[#expiry + 1] = place
      end
    end
    places[i] = place
    bodies[#bodies + 1] = place
    bodies[#bodies + 1] = record
    line[#line + 1] = score or place
    line[#line + 1] = place
  end
  redis.call('HSET', at .. 'body', unpack(bodies))
  if #expiry > 0 then redis.call('ZADD', at .. 'expiry', unpack(expiry)) end
  if #delayed > 0 then redis.call('ZADD', at .. 'delayed', unpack(delayed)) end
  if #ready > 0 then redis.call('ZADD', at .. 'ready', unpack(ready)) end
  return #ready / 2 + (#delayed > 0 and is_next(at, due) or 0)
end

local function take_back(at, places)
  if #places == 0 then return end
  local commands = {{'HDEL', at .. 'body', unpack(places)}}
  for _, line in ipairs({'ready', 'delayed', 'expiry'}) do
    commands[#commands + 1] = {'ZREM', at .. line, unpack(places)}
  end
  return run_all(commands)
end

-- Places that nothing is ever stored at, and the keys that stay once nothing is stored there any more.
local NOWHERE, LASTING = {0}, {stem .. 'last'}

-- Makes messages fetchable that their owner held under these marks, each at its old place in line.
local function give_back(places, marks, died)
  if #places == 0 then return end
  local ready, expiry = {}, {}
  for i, place in ipairs(places) do
    ready[2 * i - 1], ready[2 * i] = place, place
    local expires = string.match(marks[i], ':(%d+)')
    if expires then
      expiry[#expiry + 1] = expires
      expiry[#expiry + 1] = place
    end
    if died then redis.call('HINCRBY', DEATHS, place, 1) end
  end
  redis.call('ZADD', READY, unpack(ready))
  if #expiry > 0 then redis.call('ZADD', EXPIRY, unpack(expiry)) end
end

-- Gives back all that a worker holds but for the places in `kept`; returns how many.
local function give_back_all(worker, died, kept)
  local held, count, places, marks = redis.call('HGETALL', own(worker)), 0, {}, {}
  local function flush()
    if #places > 0 then
      give_back(places, marks, died)
      redis.call('HDEL', own(worker), unpack(places))
      count, places, marks = count + #places, {}, {}
    end
  end
  for i = 1, #held, 2 do
    if not kept[held[i]] then
      places[#places + 1], marks[#marks + 1] = held[i], held[i + 1]
      if #places == 1000 then flush() end
    end
  end
  flush()
  return count
end

-- What fell due becomes fetchable.
local function promote(time)
  local due = redis.call('ZRANGEBYSCORE', DELAYED, '-inf', time, 'LIMIT', 0, 1000)
  if #due == 0 then return end
  local ready = {}
  for i, place in ipairs(due) do ready[2 * i - 1], ready[2 * i] = place, place end
  redis.call('ZADD', READY, unpack(ready))
  redis.call('ZREM', DELAYED, unpack(due))
end

-- What expired goes, up to 1,000 of them. Running messages have no entry.
local function expire(time)
  local over = redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', time, 'LIMIT', 0, 1000)
  if #over == 0 then return end
  redis.call('ZREM', READY, unpack(over))
  redis.call('ZREM', DELAYED, unpack(over))
  redis.call('HDEL', BODY, unpack(over))
  redis.call('HDEL', DEATHS, unpack(over))
  redis.call('ZREM', EXPIRY, unpack(over))
end

-- Gives back what workers hold whose lease is over; returns each with how many it held. One that is spared has a longer
-- lease: so nobody looks for it before.
local function bury(time, me)
  local buried, over = {}, redis.call('ZRANGEBYSCORE', WORKERS, '-inf', time, 'WITHSCORES', 'LIMIT', 0, 10)
  for i = 1, #over, 2 do
    local worker = over[i]
    local more = worker ~= me and spared(worker, time - over[i + 1] + lease_of(worker)) or 0
    if more > 0 then
      redis.call('ZADD', WORKERS, time + more, worker)
    elseif worker ~= me then
      local count = give_back_all(worker, true, {})
      redis.call('ZREM', WORKERS, worker)
      if count > 0 then
        buried[#buried + 1] = worker
        buried[#buried + 1] = count
      end
    end
  end
  return buried
end

-- Returns the next in line: all places, those with a record, and these; a place without one is a foreigner's.
local function look(want)
  local seen, places, records, bytes = {}, {}, {}, 0
  local step = next_step(want, 0, 0)
  while step > 0 and #seen - #places < STEP do
    local some = redis.call('ZRANGE', READY, #seen, #seen + step - 1)
    if #some == 0 then break end
    for i, record in ipairs(redis.call('HMGET', BODY, unpack(some))) do
      seen[#seen + 1] = some[i]
      if record then
        places[#places + 1], records[#records + 1] = some[i], record
        bytes = bytes + #record
      end
    end
    step = next_step(want, #places, bytes)
  end
  return seen, places, records
end

local function hold(worker, claim, places, lease, time)
  local marks, expiry = {}, {}
  local expires = redis.call('EXISTS', EXPIRY) == 1
  if expires then expiry = redis.call('ZMSCORE', EXPIRY, unpack(places)) end
  for i, place in ipairs(places) do
    marks[2 * i - 1], marks[2 * i] = place, expiry[i] and (claim .. ':' .. expiry[i]) or claim
  end
  redis.call('HSET', own(worker), unpack(marks))
  redis.call('ZADD', WORKERS, time + lease, worker)
  if expires then redis.call('ZREM', EXPIRY, unpack(places)) end
end

-- Returns in how many milliseconds something is to be had without a publish: a delay or another's lease ends.
local function soon(time, me)
  local next = redis.call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  local leases = redis.call('ZRANGE', WORKERS, 0, 1, 'WITHSCORES')
  local lease = leases[leases[1] == me and 4 or 2]  -- its own runs out while it holds nothing
  if not next or (lease and lease + 0 < next + 0) then next = lease end
  return next and math.max(0, next - time) or -1
end

-- ARGV: worker, how many, the claim's number, lease, '1' to wait for more where nothing is there, what only streams need,
-- and for how long its connection has stood if it was lost before.
local function claim()
  local worker, want, number, waits, time = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[6] == '1', now()
  if is_refused(worker, number) then return nil end
  strike(worker)
  promote(time)
  expire(time)
  local buried = bury(time, worker)
  local seen, places, records = look(want)
  local deaths, wait = {}, -1
  if #places > 0 then
    if redis.call('EXISTS', DEATHS) == 1 then deaths = redis.call('HMGET', DEATHS, unpack(places)) end
    hold(worker, number, places, ARGV[5], time)
  end
  if #seen > 0 then redis.call('ZREM', READY, unpack(seen)) end
  if #places > 0 then
    ring(stem, redis.call('ZCARD', READY) + passes_on(#places, want))
  else
    wait = soon(time, worker)
    if waits then enter(worker, want) end
  end
  return {places, {}, records, deaths, wait, #seen - #places, buried}
end

-- Divides deliveries, each `stride` arguments that begin with place and claim, into those that the worker holds (places,
-- numbers, marks) and the positions of the others.
local function divide(stride)
  local places, held, numbers, marks, fenced = {}, {}, {}, {}, {}
  for i = 3, #ARGV, stride do places[#places + 1] = ARGV[i] end
  local found = redis.call('HMGET', own(ARGV[2]), unpack(places))
  for i, place in ipairs(places) do
    local mark, number = found[i], ARGV[4 + (i - 1) * stride]
    if mark and (mark == number or string.match(mark, '^(%d+):') == number) then
      held[#held + 1], numbers[#numbers + 1], marks[#marks + 1] = place, i, mark
    else
      fenced[#fenced + 1] = i - 1
    end
  end
  return fenced, held, numbers, marks
end

local function finish(places)
  if #places == 0 then return end
  redis.call('HDEL', own(ARGV[2]), unpack(places))
  redis.call('HDEL', BODY, unpack(places))
  redis.call('HDEL', DEATHS, unpack(places))
end

local function ack()
  local fenced, held = divide(2)
  finish(held)
  return fenced
end

local function release()
  local fenced, held, _, marks = divide(2)
  if #held > 0 then
    strike('')
    give_back(held, marks, false)
    redis.call('HDEL', own(ARGV[2]), unpack(held))
    ring(stem, #held)
  end
  return fenced
end

-- ARGV: worker, lease, then deliveries. A worker that others took for dead has no entry, and holds nothing.
local function extend()
  strike('')
  redis.call('ZADD', WORKERS, 'XX', now() + ARGV[3], ARGV[2])
  table.remove(ARGV, 3)
  return #ARGV > 2 and (divide(2)) or {}
end

-- ARGV: worker, the last claim made before it reconnected, and the places that it knows to hold: others are given back.
local function recover()
  local kept = {}
  for i = 4, #ARGV do kept[ARGV[i]] = true end
  strike('')
  refuse_until(ARGV[2], ARGV[3])
  local count = give_back_all(ARGV[2], false, kept)
  ring(stem, count)
  return count
end

local function leave()
  strike(ARGV[2])
  local count = give_back_all(ARGV[2], false, {})
  redis.call('ZREM', WORKERS, ARGV[2])
  ring(stem, count)
  return count
end

local function depth()
  local time = now()
  for _ = 1, 10 do expire(time) end
  local due = redis.call('ZCOUNT', DELAYED, '-inf', time)
  local ready, delayed = redis.call('ZCARD', READY) + due, redis.call('ZCARD', DELAYED) - due
  return {ready, delayed, math.max(0, redis.call('HLEN', BODY) - ready - delayed)}
end

-- ARGV: where the last page ended, how many. Returns where this one ends, and place, record, time left of each.
local function peek()
  local first, time = tonumber(ARGV[2]) or 0, now()
  expire(time)
  promote(time)
  local places = redis.call('ZRANGE', READY, first, first + ARGV[3] - 1)
  if #places == 0 then return {'', {}, {}, {}} end
  local left, expiry = {}, redis.call('ZMSCORE', EXPIRY, unpack(places))
  for i = 1, #places do left[i] = expiry[i] and (expiry[i] - time) or -1 end
  return {tostring(first + #places), places, redis.call('HMGET', BODY, unpack(places)), left}
end

-- Removes up to 1,000 messages that wait or are delayed; returns how many. ARGV: the window of what was seen.
local function purge()
  forget_seen(tonumber(ARGV[2]))
  for _, line in ipairs({READY, DELAYED}) do
    local places = redis.call('ZRANGE', line, 0, 999)
    if #places > 0 then
      redis.call('ZREM', line, unpack(places))
      redis.call('ZREM', EXPIRY, unpack(places))
      redis.call('HDEL', BODY, unpack(places))
      redis.call('HDEL', DEATHS, unpack(places))
      return #places
    end
  end
  return 0
end
