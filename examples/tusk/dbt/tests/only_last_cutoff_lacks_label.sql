-- The last cutoff is to be scored, so it has no label; each earlier one has a label in every row.
with last_cutoff as (

    select max(cutoff) as cutoff
    from {{ ref('user_activity_windows') }}

)

select windows.user_id, windows.cutoff
from {{ ref('user_activity_windows') }} as windows
cross join last_cutoff
where (windows.cutoff = last_cutoff.cutoff) <> (windows.churned is null)
