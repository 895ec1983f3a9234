-- What both layouts share. KEYS[1] is the stem of a queue's keys, ARGV[1] the operation, so that SLOWLOG tells it. Blocks
-- are set apart by blank lines: what an operation doesn't use is left out of its script (see script.py).
--
-- When the memory is full, a server refuses commands that need more, unless the script has written before: so what
-- moves or ends messages removes first and adds afterwards, and only publishing fails.

local stem = KEYS[1]

local clock

-- The server's clock in milliseconds, read once; no other one counts.
local function now()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

-- Wakes as many waiting workers as it takes for `count` messages, whoever takes most first. A worker whose connection
-- is gone hears nothing, so the next one is told.
local function ring(at, count)
  while count > 0 do
    local waiter = redis.call('ZPOPMAX', at .. 'waiters')
    if not waiter[1] then return end
    local heard = redis.pcall('PUBLISH', 'boost:wake:' .. waiter[1], '')
    if type(heard) == 'number' and heard > 0 then count = count - waiter[2] end
  end
end

-- Enters a worker among those that wait, or strikes it. Without memory it isn't entered, and looks by itself.
local function enter(worker, want, waits)
  if waits then
    redis.pcall('ZADD', stem .. 'waiters', want, worker)
  else
    redis.call('ZREM', stem .. 'waiters', worker)
  end
end

-- Returns for each id whether it is none, or wasn't seen in the last `window` milliseconds, and remembers it for as long, at
-- most twice as long: in a set a window, so that forgetting is dropping a set. A set that is in use has the empty id.
local function unseen(window, ids)
  local round = math.floor(now() / window)
  local set = stem .. 'seen:' .. round
  local here = redis.call('SMISMEMBER', set, '', unpack(ids))
  local before = redis.call('SMISMEMBER', stem .. 'seen:' .. (round - 1), unpack(ids))
  local fresh, new, known = {}, {''}, {}
  for i, id in ipairs(ids) do
    fresh[i] = id == '' or (here[i + 1] == 0 and before[i] == 0 and not known[id])
    if id ~= '' and fresh[i] then new[#new + 1], known[id] = id, true end
  end
  if #new > 1 then redis.call('SADD', set, unpack(new)) end
  if #new > 1 and here[1] == 0 then
    redis.call('PEXPIRE', set, 3 * window)
    redis.call('UNLINK', stem .. 'seen:' .. (round - 2))
  end
  return fresh
end

local function forget_seen(window)
  local round = window > 0 and math.floor(now() / window) or 0
  redis.call('UNLINK', stem .. 'seen:' .. round, stem .. 'seen:' .. (round - 1))
end

-- Reads what is to be published: a count, the window, so many records, with a window so many ids, and for each frame
-- that asks for more its number, priority, delay and time to live. Returns the records that are new, and what they ask.
local function published()
  local count, window = tonumber(ARGV[2]), tonumber(ARGV[3])
  local at, asked, fresh = 3 + count, {}, nil
  if window > 0 then
    fresh = unseen(window, {unpack(ARGV, at + 1, at + count)})
    at = at + count
  end
  for i = at + 1, #ARGV, 4 do
    asked[tonumber(ARGV[i])] = {tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])}
  end
  local records, asks = {}, {}
  for i = 1, count do
    if not fresh or fresh[i] then
      records[#records + 1] = ARGV[3 + i]
      asks[#records] = asked[i]
    end
  end
  return records, asks
end

-- Reads what is to be stored instead of deliveries, each seven arguments from place and token on; `numbers` are those
-- that are still ours. Returns records and what they ask, by the stem of their queue.
local function replacements(numbers)
  local lines = {}
  for _, number in ipairs(numbers) do
    local i = 3 + 7 * (number - 1)
    local at = KEYS[tonumber(ARGV[i + 2])]
    local line = lines[at] or {records = {}, asks = {}}
    lines[at] = line
    line.records[#line.records + 1] = ARGV[i + 3]
    line.asks[#line.records] = {tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])}
  end
  return lines
end

-- Refuses claims of a worker up to a number: it has reconnected since, and never hears of them.
local function refuse_until(worker, claim)
  redis.call('SET', stem .. 'refused:' .. worker, claim, 'PX', 3600000)
end

local function is_refused(worker, claim)
  return tonumber(claim) <= tonumber(redis.call('GET', stem .. 'refused:' .. worker) or 0)
end

-- A claim ends when it has so many bytes, however many messages are wanted; and looks at few until it knows their size.
local ENOUGH, FIRST_STEP, STEP = 16777216, 16, 1000

local function next_step(want, got, bytes)
  if bytes >= ENOUGH then return 0 end
  return math.min(want - got, (got == 0 or bytes > got * 16384) and FIRST_STEP or STEP)
end
