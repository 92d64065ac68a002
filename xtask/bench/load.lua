-- The load of `cargo xtask bench`, run by wrk: `place` orders or `read` the orders listed in a file. It sends for a
-- given time, then waits for the answers still out, so that every request has been answered when it ends, and every
-- acknowledged order's id stands in a file.
--
--   wrk … -s load.lua URL -- place SECONDS ACKNOWLEDGED
--   wrk … -s load.lua URL -- read SECONDS ORDERS
--
-- One thread only: the counts below are a thread's own.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } moment;
  int clock_gettime(int clock, moment *now);
  int getpid(void);
  int kill(int process, int signal);
]]
local MONOTONIC, SIGINT = 1, 2
local moment = ffi.new("moment")

local function now()
  ffi.C.clock_gettime(MONOTONIC, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) / 1e9
end

local BODY = '{"customer_id":"c-%d","email":"ana@example.com","reference":"bench-%d","currency":"EUR",'
  .. '"items":[{"sku":"A-1","quantity":2,"unit_price":4995}]}'

-- Answers to the requests that fill the time while the last ones are out do not count; this tells them apart.
local FILLER = "/filler"

started, ended, sent, good, other, over, first_other = nil, 0, 0, 0, 0, false, ""
local what, seconds, path, file, orders = nil, nil, nil, nil, {}
local filler, looked_at

function init(args)
  what, seconds, path = args[1], tonumber(args[2]), args[3]
  wrk.headers["Content-Type"] = "application/json"
  filler = wrk.format("GET", FILLER)
  if what == "place" then
    file = assert(io.open(path, "a"))
  else
    for id in io.lines(path) do
      orders[#orders + 1] = wrk.format("GET", "/orders/" .. id)
    end
    assert(#orders > 0, "no orders in " .. path)
  end
end

function request()
  -- wrk asks once before it begins, only to look at the request.
  if not looked_at then
    looked_at = true
    return filler
  end
  local at = now()
  started = started or at
  if over or at - started > seconds then
    over = true
    return filler
  end
  sent = sent + 1
  if what == "place" then
    return wrk.format("POST", "/orders", nil, string.format(BODY, sent % 1000, sent))
  end
  return orders[sent % #orders + 1]
end

local function count(status, headers, body)
  ended = now()
  if what == "place" and status == 201 then
    good = good + 1
    local location = headers["Location"] or headers["location"]
    file:write(location:match("[^/]+$"), "\n")
  elseif what == "read" and status == 200 then
    good = good + 1
  else
    other = other + 1
    first_other = status .. " " .. body
  end
end

function response(status, headers, body)
  if not (over and status == 404) then
    count(status, headers, body)
  end
  if over and good + other == sent then
    if file then
      file:flush()
    end
    wrk.thread:stop()
    -- Otherwise wrk sleeps until its own time is over.
    ffi.C.kill(ffi.C.getpid(), SIGINT)
  end
end

function setup(thread)
  worker = thread
end

function done(summary, latency)
  local good, other, sent = worker:get("good"), worker:get("other"), worker:get("sent")
  print(string.format("result good=%d other=%d unanswered=%d seconds=%.6f p50_ms=%.3f p99_ms=%.3f",
    good, other, sent - good - other, worker:get("ended") - worker:get("started"),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
  if other > 0 then
    print("other " .. worker:get("first_other"))
  end
end
