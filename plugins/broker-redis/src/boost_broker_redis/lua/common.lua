-- What both layouts share. KEYS[1] is the stem of a queue's keys, ARGV[1] the operation, so that SLOWLOG tells it. Blocks
-- are set apart by blank lines: what an operation doesn't use is left out of its script (see script.py).
--
-- Redis takes nothing back of a script that a command fails in, for lack of permission or at another program's key: so
-- what moves messages adds first and removes afterwards, and what stores new ones undoes it. When the memory is full, a
-- server refuses commands that need more, unless the script has written before: so what moves messages strikes a waiter
-- first, and only publishing fails.

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
-- is gone hears nothing, so the next one is told. Never fails: what is told of is done.
local function ring(at, count)
  while count > 0 do
    local waiter = redis.pcall('ZPOPMAX', at .. 'waiters')
    if not waiter[1] then return end
    local heard = redis.pcall('PUBLISH', 'boost:wake:' .. waiter[1], '')
    if type(heard) == 'number' and heard > 0 then count = count - waiter[2] end
  end
end

-- Runs commands, each whether or not others fail; returns the first error.
local function run_all(commands)
  local problem
  for _, command in ipairs(commands) do
    local reply = redis.pcall(unpack(command))
    if not problem and type(reply) == 'table' and reply.err then problem = reply end
  end
  return problem
end

-- Returns 1 where what is due at `due` is the first of the delayed ones: who waits doesn't know of it yet; else 0.
local function is_next(at, due)
  return redis.call('ZRANGE', at .. 'delayed', 0, 0, 'WITHSCORES')[2] + 0 == due and 1 or 0
end

-- Returns 1 where a worker that takes no more has to tell somebody else that there are delayed ones; else 0.
local function passes_on(taken, want) return taken >= want and redis.call('EXISTS', stem .. 'delayed') or 0 end

-- Enters a worker among those that wait. Without memory it isn't entered, and looks by itself.
local function enter(worker, want) redis.pcall('ZADD', stem .. 'waiters', want, worker) end

-- Strikes a worker off those that wait; the one without a name changes nothing.
local function strike(worker) redis.call('ZREM', stem .. 'waiters', worker) end

local function forget_seen(window)
  local round = window > 0 and math.floor(now() / window) or 0
  redis.call('UNLINK', stem .. 'seen:' .. round, stem .. 'seen:' .. (round - 1))
end

-- Refuses claims of a worker up to a number: it has reconnected since, and never hears of them.
local function refuse_until(worker, claim)
  redis.call('SET', stem .. 'refused:' .. worker, claim, 'PX', 3600000)
end

local function is_refused(worker, claim)
  return tonumber(claim) <= tonumber(redis.call('GET', stem .. 'refused:' .. worker) or 0)
end

-- Returns the lease of a worker, with which its name ends; of one without, the lease of who claims.
local function lease_of(worker) return tonumber(string.match(worker, ':(%d+)$') or ARGV[5]) end

-- So many milliseconds after the server is back everybody has dialled again. Uptime is told in whole seconds.
local REDIAL, SECOND = 4000, 1000

local here

-- Returns for how many milliseconds the server has been back: since its start, where it may tell, and since who claims got
-- a lost connection back (ARGV[8]), for after a start it may load for long.
local function back()
  if not here then
    local info = redis.pcall('INFO', 'server')
    local up = type(info) == 'string' and string.match(info, 'uptime_in_seconds:(%d+)')
    here = math.min(up and up * SECOND or math.huge, tonumber(ARGV[8]) or math.huge)
  end
  return here
end

-- Returns how many milliseconds longer to wait for a worker whose lease is over and was renewed so many ago. Nobody could
-- renew while the server was away, so who hasn't since has a lease from when it was back, and time to dial again.
local function spared(worker, renewed)
  return renewed < back() - SECOND and 0 or math.max(lease_of(worker), REDIAL) - back()
end

-- A claim ends when it has so many bytes, however many messages are wanted; and looks at few until it knows their size.
local ENOUGH, FIRST_STEP, STEP = 16777216, 16, 1000

local function next_step(want, got, bytes)
  if bytes >= ENOUGH then return 0 end
  return math.min(want - got, (got == 0 or bytes > got * 16384) and FIRST_STEP or STEP)
end
